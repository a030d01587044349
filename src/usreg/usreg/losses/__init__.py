# SPDX-License-Identifier: Apache-2.0
"""What training minimises: errors of poses and images, and objectives made of them."""
