# SPDX-License-Identifier: Apache-2.0
"""Where frames come from: recordings, bags, video, DICOM cines, live topics.

Stamps, size and orientation are checked here.
"""
