// SPDX-License-Identifier: Apache-2.0
/** The one place that decides whether a picture may pass for the present. */

/** @typedef {"LIVE"|"STALE"|"PAUSED"|"CLOSED"|"WAITING"} State */

/** Age of the picture at a time of the server's clock, ms. */
export function ageMs(frame, server_s) {
  return frame ? 1000 * (frame.age_s + Math.max(0, server_s - frame.made_server_s)) : NaN;
}

/** Age from which a picture is stale, ms. */
export function staleLimitMs(frame, hello) {
  const periods = (hello?.stale_periods ?? 3) * (frame?.period_s ?? 0);
  return 1000 * Math.max(hello?.stale_min_s ?? 0.3, periods);
}

/** Whether the source stands still on purpose: the newer of the frame and of the status says it. */
export function isPaused(frame, status) {
  if (!status || (frame && frame.made_server_s > status.server_s)) return Boolean(frame?.paused);
  return status.state === "paused" || status.state === "ended" || Boolean(status.state === "waiting" && frame?.paused);
}

/**
 * @param {{connected: boolean, frame: object|null, status: object|null, hello: object|null, server_s: number}} known
 * @returns {{state: State, ageMs: number, limitMs: number}}
 */
export function decide({ connected, frame, status, hello, server_s }) {
  const age = ageMs(frame, server_s);
  const limit = staleLimitMs(frame, hello);
  const known = (state) => ({ state, ageMs: age, limitMs: limit });
  if (!connected) return known("CLOSED");
  if (!frame) return known("WAITING");
  if (isPaused(frame, status)) return known("PAUSED");
  // an age that cannot be told is no proof of being new
  return known(age <= limit ? "LIVE" : "STALE");
}
