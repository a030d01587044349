# SPDX-License-Identifier: Apache-2.0
"""Parts of the benchmark of the live graph: its scene, the source, the meter, the processes."""
