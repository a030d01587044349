# SPDX-License-Identifier: Apache-2.0
"""The ultrasound renderer: places, speckle, attenuation, shadow, gradient, registration, time; the published one too.

Bodies with known answers for physics; a procedural abdomen for registration. Times are medians, warm: kernels compiled,
labels prepared (printed).
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from render_scenes import NAMES, abdomen, at_share, centred, changed, cube, label_body, probe
from scipy.optimize import minimize
from torch import Tensor

from usreg.data.types import Volume
from usreg.geometry import rotation, se3
from usreg.geometry.grid import VoxelGrid
from usreg.geometry.sector import SectorGeometry
from usreg.rendering import PaperRenderer, UltrasoundConfig, UltrasoundRenderer
from usreg.rendering.ultrasound.scan_convert import scan_convert
from usreg.similarity import ncc

ROOT = Path(__file__).resolve().parents[1]
FREQUENCY = {"linear": 7.5, "convex": 3.5, "phased": 2.5}
TURN = rotation.from_axis_angle_deg((0.3, -0.5, 0.8), 35.0)
PIXEL = 0.3


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []

    def row(check: str, asked: str, measured: str, reached: bool, **numbers: Any) -> None:
        rows.append({"check": check, "asked": asked, "measured": measured, "reached": bool(reached), **numbers})
        print(f"{check:58}{asked:>22}{measured:>34}  {'reached' if reached else 'MISSED'}", flush=True)

    for kind in FREQUENCY:
        places(kind, row)
    for kind in FREQUENCY:
        speckle(kind, row)
        slope(kind, row)
    step_and_shadow(row)
    body, pose, geometry = abdomen(options.seed)
    gradient(body, pose, geometry, row)
    if options.starts:
        descent(body, pose, geometry, options.starts, row)
    cost(row, options.repeats)
    peer(row, options.repeats)
    result = {"threads": options.threads, "rows": rows}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"written: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench" / "render.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--starts", type=int, default=10, help="registrations from 5 mm and 5 degrees off; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="of the procedural body")
    return parser.parse_args()


# --- physics -----------------------------------------------------------------------------------------------------


def places(kind: str, row: Callable[..., None]) -> None:
    """Targets of one voxel in an oblique volume, and flat reflectors: worst distance from the truth, in pixels."""
    geometry, n = probe(kind), 33
    table = changed(scatterer_mean={"*": 0.01, "soft_tissue": 100.0}, impedance_mrayl={"*": 1.6})
    renderer = UltrasoundRenderer(table, UltrasoundConfig(frequency_mhz=FREQUENCY[kind], speckle=False))
    pose, xy, worst = centred(geometry, (12.0, -9.0, 20.0)), geometry.plane.points_mm()[..., :2], 0.0
    labels = torch.ones(n, n, n, dtype=torch.uint8)
    labels[n // 2, n // 2, n // 2] = 9
    for depth in (0.2, 0.4, 0.6, 0.85):
        for aside in (-0.6, -0.23, 0.03, 0.45):
            wanted = at_share(geometry, depth, aside)
            corner = TURN @ torch.full((3,), (n - 1) * 0.2, dtype=torch.float64)
            origin = tuple((pose[:3, :3] @ wanted + pose[:3, 3] - corner).tolist())
            grid = VoxelGrid((n, n, n), (0.4,) * 3, origin, tuple(TURN.reshape(-1).tolist()))
            power = scan_convert(renderer.echoes(Volume(labels[None], grid, label_names=NAMES), pose, geometry).power,
                                 geometry)[0, 0]  # fmt: skip
            near = torch.where((xy - wanted[:2]).norm(dim=-1) < 4.0, power, torch.zeros_like(power))
            found = (near[..., None] * xy).sum((0, 1)) / near.sum()
            worst = max(worst, float((found - wanted[:2]).abs().max()) / PIXEL)
    row(
        f"point scatterers, {kind}, 0.3 mm pixels", "0.5 px", f"{worst:.2f} px worst of 16", worst < 0.5, worst_px=worst
    )
    flat = max(_flat(kind, geometry, pair) for pair in ((1, 3), (1, 2), (2, 1), (1, 5)))
    row(f"flat reflectors, {kind}, 0.3 mm pixels", "0.5 px", f"{flat:.2f} px worst of 12", flat < 0.5, worst_px=flat)


def _flat(kind: str, geometry: SectorGeometry, pair: tuple[int, int]) -> float:
    renderer = UltrasoundRenderer(changed(attenuation_db_cm_mhz={"*": 0.0}),
                                  UltrasoundConfig(frequency_mhz=FREQUENCY[kind], speckle=False))  # fmt: skip
    centre, worst = geometry.plane.centre_mm, 0.0
    for share in (0.3, 0.55, 0.8):
        y = float(at_share(geometry, share, 0.0)[1]) + 0.11
        shift = torch.tensor([0.0, y - float(centre[1]), 0.0], dtype=torch.float64)
        body = label_body(lambda p, y=y: torch.where(p[..., 1] + centre[1] < y, *pair), (120, 40, 16), 0.8, shift)
        envelope = scan_convert(renderer.echoes(body, centred(geometry), geometry).envelope, geometry)[0, 0]
        middle, low = geometry.plane.width // 2, int(y / PIXEL) - 15
        profile = envelope[:, middle - 3 : middle + 4].mean(1)
        k = low + int(profile[low : low + 30].argmax())
        a, b, c = profile[k - 1 : k + 2].tolist()
        worst = max(worst, abs(k + 0.5 * (a - c) / (a - 2 * b + c) - y / PIXEL))
    return worst


def _uniform(value: int) -> Volume:
    return label_body(lambda p: torch.full(p.shape[:3], value), (80, 80, 80), 2.5, torch.zeros(3, dtype=torch.float64))


def speckle(kind: str, row: Callable[..., None]) -> None:
    """Mean over standard deviation of the envelope at places further apart than a resolution cell."""
    geometry, volume = probe(kind, 0.6), _uniform(1)
    cells = []
    for seed in range(4):
        config = UltrasoundConfig(frequency_mhz=FREQUENCY[kind], seed=seed)
        renderer = UltrasoundRenderer(changed(attenuation_db_cm_mhz={"*": 0.0}), config)
        pose = centred(geometry, (10.0 + 25 * seed, 20.0 - 11 * seed, 5.0))
        cells.append(renderer.echoes(volume, pose, geometry).envelope[0][2:-2:4, 8:-8:6].reshape(-1))
    cell = torch.cat(cells)
    ratio = float(cell.mean() / cell.std())
    row(f"speckle mean/sd, {kind} {FREQUENCY[kind]} MHz, {len(cell)} cells", "1.91 within 5 %", f"{ratio:.3f}",
        abs(ratio / 1.913 - 1) < 0.05, ratio=ratio, cells=len(cell))  # fmt: skip


def slope(kind: str, row: Callable[..., None]) -> None:
    """Slope of 20 log10 of the mean envelope over 128 lines, four draws of speckle."""
    geometry, volume, found = probe(kind, 0.6), _uniform(1), []
    for seed in range(4):
        renderer = UltrasoundRenderer(None, UltrasoundConfig(frequency_mhz=FREQUENCY[kind], seed=seed))
        echoes = renderer.echoes(volume, centred(geometry, (10.0, 20.0 + 9 * seed, 5.0)), geometry)
        level = 20.0 * torch.log10(echoes.envelope[0].mean(0))[8:-8]
        found.append(np.polyfit(echoes.beams.depth_mm[8:-8].numpy() / 10.0, level.numpy(), 1)[0])
    asked, mean = -2.0 * 0.5 * FREQUENCY[kind], float(np.mean(found))
    off = 100 * (mean / asked - 1)
    row(f"attenuation in liver, {kind}, dB per cm", f"{asked:.2f} within 2 %", f"{mean:.3f} ({off:+.1f} %)",
        abs(mean / asked - 1) < 0.02, slope=mean, draws=found)  # fmt: skip


def step_and_shadow(row: Callable[..., None]) -> None:
    """A layered body with a rib, a vessel and gas, at 512, 1024 and 2048 samples per line."""
    geometry = probe("convex", 0.5)
    top = float(geometry.plane.centre_mm[1])

    def fill(p: Tensor) -> Tensor:
        x, y = p[..., 0], p[..., 1] + top
        label = torch.ones_like(x)
        label[y < 12], label[(y >= 12) & (y < 22)] = 2, 4
        label[(x + 25) ** 2 + (y - 20) ** 2 < 36] = 3
        label[(x - 25) ** 2 + (y - 45) ** 2 < 64] = 7
        label[(y > 70) & (y < 80) & (x > 5) & (x < 15)] = 5
        return label

    volume = label_body(fill, (180, 130, 16), 1.0, torch.zeros(3, dtype=torch.float64))
    x, y, _ = (geometry.plane.points_mm() - geometry.plane.centre_mm).unbind(-1)
    y = y + top
    behind = torch.atan2(x, y - geometry.apex_mm[1]) - math.atan2(-25.0, 20.0 - geometry.apex_mm[1])
    regions = {
        "fat": (y > 4) & (y < 10) & (x.abs() < 15), "interface": ((y - 12).abs() < 2) & (x.abs() < 10),
        "muscle": (y > 14) & (y < 20) & (x.abs() < 15), "rib": ((x + 25).abs() < 3) & (y > 12) & (y < 18),
        "rib shadow": (behind.abs() < 0.02) & (y > 30) & (y < 60),
        "beside": ((behind - 0.12).abs() < 0.02) & (y > 30) & (y < 60),
        "vessel": (x - 25) ** 2 + (y - 45) ** 2 < 36, "behind the vessel": (y > 60) & (y < 65) & ((x - 28).abs() < 3),
        "gas": ((y - 70).abs() < 2) & ((x - 10).abs() < 3), "gas shadow": (y > 85) & (y < 95) & ((x - 10.5).abs() < 2),
    }  # fmt: skip
    means = []
    for samples in (512, 1024, 2048):
        renderer = UltrasoundRenderer(None, UltrasoundConfig(samples=samples))
        envelope = scan_convert(renderer.echoes(volume, centred(geometry), geometry).envelope, geometry)[0, 0]
        means.append({name: float(envelope[at].mean()) for name, at in regions.items()})
    change = {n: max(abs(b[n] / a[n] - 1) for a, b in zip(means, means[1:], strict=False)) for n in regions}
    name = max(change, key=lambda n: change[n])
    row("half the step: greatest change of ten mean echoes", "5 %", f"{100 * change[name]:.1f} % ({name})",
        change[name] < 0.05, change=change)  # fmt: skip
    dark = 20 * math.log10(means[0]["beside"] / means[0]["rib shadow"])
    row("behind a rib, against beside it", "20 dB darker", f"{dark:.0f} dB", dark >= 20, decibel=dark)


# --- gradient and registration -----------------------------------------------------------------------------------


def _loss(renderer: UltrasoundRenderer, body: Volume, pose: Tensor, geometry: SectorGeometry, target: Tensor,
          mask: Tensor, sigma: float) -> Tensor:  # fmt: skip
    image = renderer(body, pose[None], geometry)[0]
    return 1.0 - ncc(_blurred(image, mask, sigma), _blurred(target.to(image), mask, sigma), mask)[0]


def _blurred(image: Tensor, mask: Tensor, sigma: float) -> Tensor:
    """Gaussian blur inside the mask; sigma in pixels, 0: none."""
    if sigma == 0:
        return image
    half = math.ceil(3 * sigma)
    k = torch.exp(-0.5 * (torch.arange(-half, half + 1, dtype=image.dtype) / sigma) ** 2)[None, None, :, None]
    both = torch.cat([image * mask, mask.to(image)])
    both = torch.nn.functional.conv2d(torch.nn.functional.conv2d(both, k, padding=(half, 0)), k.mT, padding=(0, half))
    return both[:1] / both[1:].clamp_min(1e-3)


def gradient(body: Volume, truth: Tensor, geometry: SectorGeometry, row: Callable[..., None]) -> None:
    """Six derivatives of an NCC loss 1 mm and 1 degree off, against central differences of 1e-6 mm and 1e-7 rad."""
    target, mask = UltrasoundRenderer(None, UltrasoundConfig(seed=1))(body, truth, geometry)
    for speckled in (False, True):
        renderer = UltrasoundRenderer(None, UltrasoundConfig(speckle=speckled))

        def loss(x: Tensor, renderer: UltrasoundRenderer = renderer) -> Tensor:
            pose = se3.right_at_centre(truth, x[:3], x[3:], geometry.plane.centre_mm)
            return _loss(renderer, body, pose, geometry, target, mask, 0.0)

        x = torch.tensor([0.8, -0.6, 0.7, 0.01, -0.012, 0.008], dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(loss(x), x)
        worst = 0.0
        for k in range(6):
            step = torch.zeros(6, dtype=torch.float64)
            step[k] = 1e-6 if k < 3 else 1e-7
            ahead, back = (float(loss((x + s * step).detach().requires_grad_(True)).detach()) for s in (1, -1))
            worst = max(worst, abs(float(found[k]) / ((ahead - back) / float(2 * step[k])) - 1.0))
        word = "with speckle" if speckled else "expected envelope"
        row(f"gradient of NCC in the pose, {word}", "1 %", f"{100 * worst:.3f} % worst of 6", worst < 0.01, worst=worst)


def descent(body: Volume, truth: Tensor, geometry: SectorGeometry, starts: int, row: Callable[..., None]) -> None:
    """From 5 mm and 5 degrees off in random directions; the target has speckle, the rendering its expectation."""
    target, mask = UltrasoundRenderer(None, UltrasoundConfig(seed=1))(body, truth, geometry)
    renderer = UltrasoundRenderer(None, UltrasoundConfig(speckle=False, lines=96, samples=320, rays=2))
    rng, points, finals, seconds = np.random.default_rng(0), geometry.sample_points_mm(), [], []
    scale, centre = torch.tensor([1.0, 1.0, 1.0, 0.02, 0.02, 0.02], dtype=torch.float64), geometry.plane.centre_mm

    def tre(pose: Tensor) -> float:
        return float((se3.transform_points(pose, points) - se3.transform_points(truth, points)).norm(dim=-1).mean())

    for _ in range(starts):
        draw = [d / np.linalg.norm(d) for d in (rng.standard_normal(3), rng.standard_normal(3))]
        off = torch.tensor(5.0 * draw[0]), torch.tensor(math.radians(5.0) * draw[1])
        pose, begin = se3.right_at_centre(truth, *off, centre), time.perf_counter()
        for sigma, most in ((8.0, 25), (4.0, 20), (2.0, 20), (1.0, 15)):

            def value(u: Any, pose: Tensor = pose, sigma: float = sigma) -> tuple[float, Any]:
                x = torch.tensor(u, requires_grad=True)
                v = x * scale
                moved = se3.right_at_centre(pose, v[:3], v[3:], centre).float()
                loss = _loss(renderer, body, moved, geometry, target, mask, sigma)
                loss.backward()
                return float(loss.detach()), x.grad.numpy()

            u = minimize(value, np.zeros(6), jac=True, method="BFGS", options={"maxiter": most, "gtol": 1e-5}).x
            v = torch.tensor(u) * scale
            pose = se3.right_at_centre(pose, v[:3], v[3:], centre)
        finals.append(tre(pose))
        seconds.append(time.perf_counter() - begin)
    good = sum(t <= 1.0 for t in finals)
    row("registration from 5 mm / 5 deg, other seed: TRE <= 1 mm", "9 of 10",
        f"{good} of {starts}, median {statistics.median(finals):.2f}, worst {max(finals):.2f} mm", good >= 0.9 * starts,
        tre_mm=finals, seconds=seconds)  # fmt: skip


# --- cost, and the published renderer ----------------------------------------------------------------------------


def _milliseconds(work: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times[2:])


def cost(row: Callable[..., None], repeats: int) -> None:
    volume, pose, geometry = cube()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    renderer, begin = UltrasoundRenderer(), time.perf_counter()
    renderer(volume, pose, geometry)
    first = time.perf_counter() - begin
    forward = _milliseconds(lambda: renderer(volume, pose, geometry), repeats)

    def both() -> None:
        renderer(volume, pose.clone().requires_grad_(True), geometry)[0].sum().backward()

    backward = _milliseconds(both, max(5, repeats // 4))
    held = sum(t.numel() * t.element_size() for t in _held(renderer, volume)) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    check = f"forward, 128 lines x 512 samples ({UltrasoundConfig().rays} rays each) to 256x256"
    row(check, "40 ms", f"{forward:.1f} ms", forward <= 40,
        forward_ms=forward, first_s=first, forward_and_backward_ms=backward)  # fmt: skip
    row("memory for a body of 256^3, its labels included", "1024 MB", f"{held:.0f} MB held", held < 1024,
        held_mb=held, process_before_mb=before, process_peak_mb=peak)  # fmt: skip
    print(f"  first call {first:.2f} s (labels, scatterers, kernels loaded); forward and backward {backward:.0f} ms; "
          f"process {before:.0f} MB before, {peak:.0f} MB at most")  # fmt: skip


def _held(renderer: UltrasoundRenderer, volume: Volume) -> list[Tensor]:
    device = torch.device("cpu")
    labels = renderer._labels.get(volume, device)
    return [volume.data, labels.shares, labels.mixed, renderer._tile(device).values]


def peer(row: Callable[..., None], repeats: int) -> None:
    """The published renderer in the same run: time, and where a ball of vessel in liver appears."""
    volume, pose, geometry = cube()
    ours, theirs = UltrasoundRenderer(), PaperRenderer()
    a, b = (_milliseconds(lambda r=r: r(volume, pose, geometry), repeats) for r in (ours, theirs))
    row("peer: time of the published renderer over ours, forward", "reported", f"{b / a:.2f} ({b:.0f} / {a:.0f} ms)",
        True, ratio=b / a, ours_ms=a, published_ms=b)  # fmt: skip
    for kind in FREQUENCY:
        config = UltrasoundConfig(frequency_mhz=FREQUENCY[kind], speckle=False)
        errors = [_displacement(r, kind) for r in (UltrasoundRenderer(None, config), PaperRenderer())]
        worst = [max(e) for e in errors]
        word = f"{worst[0]:.2f} mm, {worst[1]:.1f} mm at most"
        row(f"peer: image mm from CT mm, {kind}: ours, published", "reported", word, True,
            ours_mm=errors[0], published_mm=errors[1])  # fmt: skip


def _displacement(renderer: Any, kind: str) -> list[float]:
    """Distance, mm, between a ball's place in the CT and the middle of what it changes in the picture."""
    geometry = probe(kind, 0.5)
    centre, found = geometry.plane.centre_mm[:2], []
    for depth in (0.25, 0.5, 0.75):
        for aside in (-0.6, 0.4):
            at = at_share(geometry, depth, aside)[:2]
            bodies = [label_body(lambda p, v=v, at=at: torch.where((p[..., :2] + centre - at).norm(dim=-1) < 2.5, v, 1),
                                 (190, 150, 6), 1.0, torch.zeros(3, dtype=torch.float64)) for v in (7, 1)]  # fmt: skip
            images = [renderer(body, centred(geometry), geometry)[0][0, 0].double() for body in bodies]
            change = (images[0] - images[1]).abs()
            change = change * (change > 0.5 * change.max())
            middle = (change[..., None] * geometry.plane.points_mm()[..., :2]).sum((0, 1)) / change.sum()
            found.append(float((middle - at).norm()))
    return found


if __name__ == "__main__":
    sys.exit(main())
