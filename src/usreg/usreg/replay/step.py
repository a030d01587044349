# SPDX-License-Identifier: Apache-2.0
"""A frame of a replay with what is true at its stamp, and its errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from torch import Tensor

from ..data.sessions import FrameNames
from ..evaluation import Row, landmark_tre_mm, normalised_error, row_of, tre_mm
from ..geometry import se3
from ..navigator import StepResult
from ..smoothing import Prediction


@dataclass(eq=False)
class Step:
    """A frame's result, what is true at its stamp, and its fixed-lag pose.

    Args:
        truth: poses (4, 4), mm, by (parent, child); empty where nobody knows.
        lagged: None where none may be given out.
        landmarks: points (N, 3), mm in the volume's frame, at which errors are reported; None where there are none.
    """

    result: StepResult
    names: FrameNames
    truth: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    lagged: Prediction | None = None
    landmarks: Tensor | None = None

    @property
    def stamp_s(self) -> float:
        """Of the frame."""
        return self.result.frame.stamp_s

    @property
    def true_world_T_ct(self) -> Tensor | None:
        """Where the volume truly lies, (4, 4); None where nobody knows."""
        pose = self.truth.get((self.names.world, self.names.volume))
        return None if pose is None else se3.check_rigid(pose, "true world_T_ct")

    @property
    def image_truth(self) -> Tensor | None:
        """The world_T_ct that puts the frame, at its measured pose, where it truly lies in the volume.

        It differs from `true_world_T_ct` by the tracking's error: what counts for a target in the image.
        """
        world_T_ct, tracked = self.true_world_T_ct, self.result.tracked
        world_T_image = self.truth.get((self.names.world, self.names.image))
        if world_T_ct is None or tracked is None or world_T_image is None:
            return world_T_ct
        return tracked.world_T_image @ se3.inverse(se3.check_rigid(world_T_image, "true world_T_image")) @ world_T_ct

    @property
    def registered(self) -> Tensor | None:
        """world_T_ct of the estimate if registration and filter accepted it."""
        r = self.result
        used = r.estimate is not None and r.update is not None and r.update.accepted
        return r.estimate.world_T_ct if used and r.estimate is not None else None

    @property
    def smoothed(self) -> Tensor | None:
        """world_T_ct that was shown with the frame."""
        return None if self.result.prediction is None else self.result.prediction.world_T_ct

    @property
    def has_output(self) -> bool:
        """Whether the frame was registered and a pose was given out with it."""
        return self.result.status == "TRACKING" and self.smoothed is not None

    @property
    def fixed_lag(self) -> Tensor | None:
        """world_T_ct with what was seen until `lag_s` later."""
        return None if self.lagged is None else self.lagged.world_T_ct

    def error_mm(self, world_T_ct: Tensor | None) -> float:
        """TRE of the frame under a pose of the volume; NaN without truth, pose or tracking."""
        truth, tracked = self.image_truth, self.result.tracked
        if world_T_ct is None or truth is None or tracked is None:
            return math.nan
        found, true = (se3.inverse(t) @ tracked.world_T_image for t in (world_T_ct, truth))
        return tre_mm(found, true, tracked.frame.geometry)

    def landmark_mm(self, world_T_ct: Tensor | None) -> float:
        """Mean error at the landmarks under a pose of the volume; NaN without truth, pose or landmarks.

        It is taken against `true_world_T_ct` and not `image_truth`: where the landmarks lie in the room is asked, so
        the tracking's error counts.
        """
        truth = self.true_world_T_ct
        if world_T_ct is None or truth is None or self.landmarks is None:
            return math.nan
        return landmark_tre_mm(world_T_ct, truth, self.landmarks)

    def row(self) -> Row:
        """The registration of the frame against the truth; without a pose of the probe only its status."""
        r = self.result
        if r.tracked is None:
            return Row(r.frame.index, r.frame.stamp_s, status=r.status, reason=r.reason)
        start = None if r.start is None else r.start.world_T_ct
        row = row_of(r.tracked, start, r.estimate, self.image_truth, r.status, r.reason)
        row = replace(row, accepted=self.registered is not None)
        truth, e = self.true_world_T_ct, r.estimate
        if e is None or truth is None:
            return row
        # the covariance is of world_T_ct and holds the tracking's error, which the TRE in the image does not
        nees = normalised_error(e.world_T_ct, truth, e.covariance, e.pivot)
        return replace(row, nees=nees, landmark_tre_mm=self.landmark_mm(e.world_T_ct))
