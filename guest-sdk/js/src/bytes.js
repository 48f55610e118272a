// Bytes and text between a plugin and its bindings.

const encoder = new TextEncoder();

/** The most that one read or write of the host carries. */
export const PIECE = 1024 * 1024;

/** Text as UTF-8; bytes of any kind as they are. */
export function toBytes(value) {
  if (typeof value === "string") return encoder.encode(value);
  if (ArrayBuffer.isView(value)) {
    return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  }
  // The bindings live in a realm of their own, whose classes are not the plugin's: no instanceof.
  if (Object.prototype.toString.call(value) === "[object ArrayBuffer]") return new Uint8Array(value);
  throw new TypeError("text or bytes are wanted");
}

/** Bytes of the bindings as the plugin's own `Uint8Array`. */
export const ours = (bytes) => new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Text of bytes in UTF-8; what is not is replaced, as `Response.text()` does. */
export const toText = (bytes) => new TextDecoder().decode(bytes);

/** Pieces, one after the other. */
export function joined(pieces) {
  if (pieces.length === 1) return pieces[0];
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
