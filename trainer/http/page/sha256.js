/** SHA-256 of content that arrives in pieces: `crypto.subtle` needs it at once, and https. */

const BLOCK_BYTES = 64;
/** Fractional parts of the square and cube roots of the first primes, as the standard (FIPS 180-4) has them. */
const [START, ROUND] = constants();

/** Computes the hash of pieces that follow each other. */
export class Sha256 {
  #state = Int32Array.from(START);
  #words = new Int32Array(BLOCK_BYTES);
  #rest = new Uint8Array(0);
  #bytes = 0;

  /**
   * Add a piece.
   * @param {Uint8Array} piece
   */
  add(piece) {
    this.#bytes += piece.length;
    const all = new Uint8Array(this.#rest.length + piece.length);
    all.set(this.#rest);
    all.set(piece, this.#rest.length);
    const end = all.length - (all.length % BLOCK_BYTES);
    const view = new DataView(all.buffer);
    for (let offset = 0; offset < end; offset += BLOCK_BYTES) this.#block(view, offset);
    this.#rest = all.slice(end);
  }

  /** Return the hash as hexadecimal digits; nothing can be added after it. */
  hex() {
    const bytes = this.#bytes;
    const padding = new Uint8Array(((119 - (bytes % BLOCK_BYTES)) % BLOCK_BYTES) + 9);
    padding[0] = 0x80;
    new DataView(padding.buffer).setBigUint64(padding.length - 8, BigInt(bytes) * 8n);
    this.add(padding);
    return Array.from(this.#state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  /**
   * @param {DataView} view
   * @param {number} offset
   */
  #block(view, offset) {
    const words = this.#words;
    for (let i = 0; i < 16; i++) words[i] = view.getInt32(offset + 4 * i);
    for (let i = 16; i < 64; i++) {
      const early = at(words, i - 15);
      const late = at(words, i - 2);
      const small = turned(early, 7) ^ turned(early, 18) ^ (early >>> 3);
      const large = turned(late, 17) ^ turned(late, 19) ^ (late >>> 10);
      words[i] = (at(words, i - 16) + small + at(words, i - 7) + large) | 0;
    }
    const state = this.#state;
    let a = at(state, 0);
    let b = at(state, 1);
    let c = at(state, 2);
    let d = at(state, 3);
    let e = at(state, 4);
    let f = at(state, 5);
    let g = at(state, 6);
    let i = at(state, 7);
    for (let round = 0; round < 64; round++) {
      const choice = (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g));
      const first = (i + choice + at(ROUND, round) + at(words, round)) | 0;
      const second = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      // one by one: arrays in their place would be several times as slow
      i = g;
      g = f;
      f = e;
      e = (d + first) | 0;
      d = c;
      c = b;
      b = a;
      a = (first + second) | 0;
    }
    state[0] = at(state, 0) + a;
    state[1] = at(state, 1) + b;
    state[2] = at(state, 2) + c;
    state[3] = at(state, 3) + d;
    state[4] = at(state, 4) + e;
    state[5] = at(state, 5) + f;
    state[6] = at(state, 6) + g;
    state[7] = at(state, 7) + i;
  }
}

/** @param {Int32Array} words @param {number} index */
function at(words, index) {
  return /** @type {number} */ (words[index]);
}

/** @param {number} word @param {number} bits */
function turned(word, bits) {
  return (word >>> bits) | (word << (32 - bits));
}

/** @returns {[Int32Array, Int32Array]} */
function constants() {
  /** @type {number[]} */
  const primes = [];
  for (let number = 2; primes.length < 64; number++) if (primes.every((prime) => number % prime)) primes.push(number);
  /** @param {(value: number) => number} root @param {number[]} values */
  const parts = (root, values) => Int32Array.from(values, (value) => (root(value) % 1) * 2 ** 32);
  return [parts(Math.sqrt, primes.slice(0, 8)), parts(Math.cbrt, primes)];
}
