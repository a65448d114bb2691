/** Server-sent events over fetch, because EventSource cannot send an API key. */

import { ApiError, call } from "./api.js";

const FIRST_WAIT = 1000;
const LAST_WAIT = 30_000;

/** @typedef {{id: string, event: string, data: string}} ServerEvent */

/** Cuts a text that arrives in pieces into events. */
export class EventParser {
  #rest = "";

  /**
   * Return the events that a piece completes; comments are none.
   * @param {string} piece
   */
  push(piece) {
    const blocks = (this.#rest + piece).split(/\r?\n\r?\n/);
    this.#rest = blocks.pop() ?? "";
    return blocks.map(parsed).filter((event) => event.data !== "");
  }
}

/**
 * Follow events until the stream has ended and `isOver` holds; after a lost connection continue behind the last event.
 * @param {string} path
 * @param {(event: ServerEvent) => void} onEvent
 * @param {() => Promise<boolean>} isOver
 * @param {AbortSignal} signal
 * @param {{last?: string, onConnect?: () => void}} options the id of the event to begin behind; called when the stream
 *   begins, and begins again
 */
export async function follow(path, onEvent, isOver, signal, { last = "", onConnect } = {}) {
  let wait = FIRST_WAIT;
  while (!signal.aborted) {
    try {
      const response = await call(path, { headers: last ? { "Last-Event-ID": last } : {}, signal });
      onConnect?.();
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      for (let piece = await reader?.read(); piece?.value !== undefined; piece = await reader?.read()) {
        wait = FIRST_WAIT;
        for (const event of parser.push(piece.value)) {
          last = event.id || last;
          onEvent(event);
        }
      }
      if (await isOver()) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status < 500 && error.status !== 429) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(2 * wait, LAST_WAIT);
  }
}

/**
 * @param {string} block
 * @returns {ServerEvent}
 */
function parsed(block) {
  const event = { id: "", event: "message", data: "" };
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, name = "", value = ""] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
    if (name === "data") data.push(value);
    else if (name === "id" || name === "event") event[name] = value;
  }
  return { ...event, data: data.join("\n") };
}
