# SPDX-License-Identifier: Apache-2.0
"""The live page: what a frame is made of, the wire format, a hub that keeps only the newest, and the server."""
