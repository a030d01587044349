# SPDX-License-Identifier: Apache-2.0
"""What was measured, beside what is to be reached."""

from __future__ import annotations

from typing import Any

# figure, unit, what is to be reached, whether at most (else at least)
REACH = [
    ("dropped", "frames", 0, True),
    ("latency_median_ms", "ms", 60, True),
    ("latency_p99_ms", "ms", 150, True),
    ("accepted_hz", "Hz", 10, False),
    ("pose_age_median_ms", "ms", 150, True),
    ("memory_growth_mb", "MB", 5, True),
]
ALSO = (
    ("latency_max_ms", "longest from stamp to fused image", "ms"),
    ("tracked_median_ms", "stamp to us/pose, median", "ms"),
    ("smoothed_median_ms", "stamp to registration/smoothed, median", "ms"),
    ("registered_hz", "estimates, accepted or not", "Hz"),
    ("compute_median_ms", "time to register a frame, median", "ms"),
    ("pose_age_p99_ms", "age of the accepted pose, 99 %", "ms"),
    ("shown_age_median_ms", "its age when a fused image arrives, median", "ms"),
)


def tell(result: dict[str, Any]) -> None:
    """Print the tables; puts `reached` into the result."""
    _tell_run(result)
    result["reached"] = {name: _reached(result[name], limit, most) for name, _, limit, most in REACH}
    print(f"{'':46}{'measured':>10}  reach")
    for name, unit, limit, most in REACH:
        word = "reached" if result["reached"][name] else "MISSED"
        print(f"{name:46}{result[name]:10.1f}  {'at most' if most else 'at least'} {limit} {unit}: {word}")
    for name, text, unit in ALSO:
        print(f"  {text:44}{result[name]:10.1f}  {unit}")
    _tell_memory(result)
    for reason, count in result["refused"].items():
        print(f"not accepted: {count} x {reason}")
    print("left in shared memory: " + (", ".join(result["leftovers"]) or "nothing"))
    _tell_ends(result)


def _reached(value: float, limit: float, most: bool) -> bool:
    return bool(value <= limit if most else value >= limit)  # NaN, where nothing came, is never reached


def _tell_run(result: dict[str, Any]) -> None:
    warm, source = result["warm_up"], result["source"]
    print(f"nodes in {result['processes']} process(es); loaded, compiled and connected in {result['ready_s']:.1f} s")
    print(
        f"the first {warm['seconds']} s of frames are left out: {warm['dropped']} of {warm['sent']} dropped, latency "
        f"median {warm['latency_median_ms']:.0f} ms, longest {warm['latency_max_ms']:.0f} ms"
    )
    print(
        f"{result['sent']} frames of 752x564 in {result['seconds']} s, volume of 200^3; the source itself was late by "
        f"up to {source['late_p99_ms']:.1f} ms (99 %)"
    )


def _tell_memory(result: dict[str, Any]) -> None:
    first_s, last_s = result["memory_at_s"]
    print(f"{'process':24}{f'MB at {first_s:.0f} s':>12}{f'MB at {last_s:.0f} s':>12}{'growth':>9}{'of one core':>14}")
    for name, row in result["memory"].items():
        resident = f"{row['first_mb']['VmRSS']:12.1f}{row['last_mb']['VmRSS']:12.1f}"
        print(f"{name:24}{resident}{row['growth_mb']:9.1f}{100 * row['processor']:13.0f}%")


def _tell_ends(result: dict[str, Any]) -> None:
    for name, code in result["exit_codes"].items():
        if code:
            print(f"{name} ended with code {code}:\n{result['told'][name]}")
