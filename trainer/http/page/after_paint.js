/** Work that the next picture does not need: a piece at a time after it is painted, so that a person waits for one piece. */

/** @type {(() => void)[]} */
const pieces = [];

/**
 * Do a piece of work after the next paint and after the pieces before it.
 * @param {() => void} piece
 */
export function afterPaint(piece) {
  if (pieces.push(piece) === 1) requestAnimationFrame(() => setTimeout(next));
}

function next() {
  try {
    pieces[0]?.();
  } finally {
    pieces.shift();
    if (pieces.length) setTimeout(next);
  }
}
