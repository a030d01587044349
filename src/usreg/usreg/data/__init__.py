# SPDX-License-Identifier: Apache-2.0
"""Values that flow through the stack, and readers and writers of files."""
