# SPDX-License-Identifier: Apache-2.0
"""Networks and their parts. Nothing is imported here: MONAI costs two seconds, only who needs its blocks pays."""
