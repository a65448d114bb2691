/** The log of a run, which follows new lines. */

import { read } from "./api.js";
import { h } from "./elements.js";
import { follow } from "./event_stream.js";
import { hasEnded } from "./states.js";

/** @import { RunStatus } from "./records.js" */

const MAX_LINES = 2000;
/** Lines that are added and removed together. */
const CHUNK_LINES = 100;
/** A reader this near the end follows it. */
const END_PIXELS = 8;

/**
 * Make the log, which is followed while it is open.
 * @param {string} runId
 * @param {AbortSignal} signal
 */
export function logOf(runId, signal) {
  let reading = new AbortController();
  const place = h("div");
  const details = h(
    "details",
    {
      ontoggle: () => {
        reading.abort();
        place.replaceChildren();
        if (!details.open) return;
        reading = new AbortController();
        place.append(...followed(runId, AbortSignal.any([signal, reading.signal])));
      },
    },
    h("summary", {}, "Log"),
    place,
  );
  return details;
}

/**
 * @param {string} runId
 * @param {AbortSignal} signal
 */
function followed(runId, signal) {
  /** @type {string[]} the lines that are not shown yet */
  let waiting = [];
  let shown = 0;
  let isCut = false;
  let isPaused = false;
  let isDrawing = false;
  const lines = h("div", { class: "scroll log", role: "region", tabindex: 0, "aria-label": "Lines of the log" });
  const state = h("p", { class: "quiet" }, "Reading the log.");
  const pause = h("button", { type: "button", "aria-pressed": "false", onclick: togglePause }, "Pause");
  const jump = h("button", { type: "button", onclick: jumpToEnd }, "Jump to the end");

  function draw() {
    isDrawing = false;
    const isAtEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < END_PIXELS;
    if (!isPaused) {
      for (let at = 0; at < waiting.length; at += CHUNK_LINES) {
        const chunk = waiting.slice(at, at + CHUNK_LINES);
        lines.append(h("pre", {}, chunk.join("\n")));
        shown += chunk.length;
      }
      waiting = [];
      for (let first = lines.firstChild; first && shown > MAX_LINES; first = lines.firstChild) {
        shown -= first.textContent?.split("\n").length ?? 0;
        first.remove(); // the browser keeps the place of what is read
        isCut = true;
      }
      if (isAtEnd) lines.scrollTop = lines.scrollHeight;
    }
    const last = isCut ? `The last ${shown.toLocaleString("en")} lines are shown.` : `${shown.toLocaleString("en")} lines.`;
    state.textContent = isPaused ? `${last} Paused: ${waiting.length.toLocaleString("en")} new.` : last;
  }

  function drawSoon() {
    if (!isDrawing) isDrawing = Boolean(requestAnimationFrame(draw));
  }

  function togglePause() {
    isPaused = !isPaused;
    pause.setAttribute("aria-pressed", String(isPaused));
    draw();
  }

  function jumpToEnd() {
    lines.scrollTop = lines.scrollHeight;
  }

  const onLine = (/** @type {{data: string}} */ event) => {
    waiting.push(event.data);
    if (waiting.length > MAX_LINES) {
      waiting = waiting.slice(-MAX_LINES);
      isCut = true;
    }
    drawSoon();
  };
  const onConnect = () => {
    waiting = [];
    shown = 0;
    lines.replaceChildren(); // the stream begins with the last lines again
    drawSoon();
  };
  const isOver = async () => {
    /** @type {RunStatus} */
    const run = await read(`/runs/${runId}`, signal);
    return hasEnded(run);
  };
  follow(`/runs/${runId}/logs/stream?tail=${MAX_LINES}`, onLine, isOver, signal, { onConnect }).catch((error) => {
    state.textContent = error instanceof Error ? error.message : String(error);
  });
  return [h("div", { class: "bar" }, pause, jump, state), lines];
}
