// SPDX-License-Identifier: Apache-2.0
/** Messages of the server: "USR1", length of the header, header JSON, buffers. Strict, as the Python side is. */

const MAGIC = 0x31525355; // "USR1", little endian
const ARRAYS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };

/**
 * Decode one message. The arrays are views of `data`: nothing is copied.
 * @param {ArrayBuffer} data
 * @returns {{header: object, buffers: Object<string, ArrayBufferView>}}
 */
export function decode(data) {
  const view = new DataView(data);
  if (data.byteLength < 8 || view.getUint32(0, true) !== MAGIC) throw new Error("not a message of usreg");
  const start = 8 + view.getUint32(4, true);
  if (start > data.byteLength || start % 8) throw new Error("the header's length does not fit the message");
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 8, start - 8)));
  const buffers = {};
  for (const { name, dtype, shape, offset } of header.buffers ?? []) {
    const Kind = ARRAYS[dtype];
    const count = shape.reduce((product, n) => product * n, 1);
    if (!Kind || start + offset + count * Kind.BYTES_PER_ELEMENT > data.byteLength) {
      throw new Error(`buffer "${name}" (${dtype}) does not fit the message`);
    }
    buffers[name] = new Kind(data, start + offset, count);
  }
  return { header, buffers };
}

/** Copies of some buffers, each with memory of its own, and the list that hands them over to another thread. */
export function detach(buffers, names) {
  const copies = {};
  for (const name of names) if (buffers[name]) copies[name] = buffers[name].slice();
  return { copies, transfer: Object.values(copies).map((array) => array.buffer) };
}
