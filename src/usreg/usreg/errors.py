# SPDX-License-Identifier: Apache-2.0
"""One family of errors: each also inherits the built-in that callers would expect."""


class UsregError(Exception):
    """Base of every error that usreg raises on purpose. The message says what came, what was expected, what to do."""


class ShapeError(UsregError, ValueError):
    """An array has the wrong shape, type or size."""


class ConfigError(UsregError, ValueError):
    """A configuration has an unknown key or a value outside its range."""


class GeometryError(UsregError, ValueError):
    """A pose, a plane or a sector is not what it must be (not rigid, not finite, empty)."""


class FileFormatError(UsregError, ValueError):
    """A file from outside is truncated, mis-declared or of a kind that is not read."""


class MissingFileError(UsregError, FileNotFoundError):
    """A file or folder that was named is not there."""


class WriteError(UsregError, OSError):
    """A file could not be written (disk full, no permission); what was written before is intact."""


class CalibrationError(UsregError, ValueError):
    """A calibration is missing, sheared or scaled beyond the limit, or contradicts the images."""


class MissingTransformError(UsregError, KeyError):
    """No path of transforms leads from one frame to the other."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class StalePoseError(UsregError, LookupError):
    """No measured pose can be given at a stamp: missing, stale, frozen, INVALID, or outside the measured interval."""


class TimeError(UsregError, ValueError):
    """Stamps repeat, run backwards or are not finite."""


class KinematicsError(UsregError, ValueError):
    """Joint names, counts, values or limits do not fit the arm."""


class NoOverlapError(UsregError, ValueError):
    """The image and the volume do not overlap enough to be compared."""


class LostError(UsregError, RuntimeError):
    """The filter has no estimate that may be given out; initialise it again."""


class SourceError(UsregError, RuntimeError):
    """A live source (device, video, stream) cannot be opened or has ended unexpectedly."""


class PortInUseError(UsregError, OSError):
    """A server cannot listen: another program has the port."""
