# SPDX-License-Identifier: Apache-2.0
"""The live page in the browser: what a frame holds, its messages, and the server that hands them out."""
