/**
 * The size of a JPEG file out of its headers, read as browsers and the server read them.
 *
 * The server and the Python client have the same rules; one table of odd files is tested against all three.
 */

const SOS = 0xda;
const APP1 = 0xe1;
const SOF = new Set([0xc0, 0xc1, 0xc2, 0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf]);
const MAX_SEGMENTS = 2000;
const EXIF_HEADER = Buffer.from('Exif\0', 'latin1'); // and one byte of padding, whatever its value
const EXIF_HEADER_BYTES = EXIF_HEADER.length + 1;
const ORIENTATION_TAG = 0x0112;
const SUB_DIRECTORY_TAG = 0x8769;
const SHORT = 3;
const LONG = 4;
const ENTRY_BYTES = 12;

const UNREADABLE = { width: 0, height: 0 };

/**
 * @param {Buffer} data a JPEG file
 * @returns {{width: number, height: number}} in pixels as viewers show the picture; zeros where unreadable
 */
export function uprightSize(data) {
  try {
    return read(data);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return { ...UNREADABLE }; // a read beyond the end: truncated inside the headers
  }
}

function read(data) {
  if (data.readUInt16BE(0) !== 0xffd8) return { ...UNREADABLE };
  let [width, height, orientation] = [0, 0, 0];
  let at = 2;
  for (let segments = 0; segments < MAX_SEGMENTS; segments += 1) {
    if (data[at] !== 0xff) return { ...UNREADABLE };
    while (data[at + 1] === 0xff) at += 1; // fill bytes
    const marker = data.readUInt8(at + 1);
    const length = data.readUInt16BE(at + 2);
    if (marker === SOS) return orientation >= 5 ? { width: height, height: width } : { width, height };
    if (length < 2 || marker < 0xc0 || (marker >= 0xd0 && marker <= 0xd9)) return { ...UNREADABLE };
    const [start, end] = [at + 4, at + 2 + length];
    if (SOF.has(marker) && length >= 8) {
      [height, width] = [data.readUInt16BE(start + 1), data.readUInt16BE(start + 3)];
      if (width === 0 || height === 0) return { ...UNREADABLE };
    } else if (marker === APP1 && orientation === 0 && isExif(data, start, end)) {
      orientation = tiffOrientation(data.subarray(start + EXIF_HEADER_BYTES, end));
    }
    at = end;
  }
  return { ...UNREADABLE };
}

function isExif(data, start, end) {
  return end > start + EXIF_HEADER_BYTES && EXIF_HEADER.equals(data.subarray(start, start + EXIF_HEADER.length));
}

/**
 * Orientation 1 to 8 out of a TIFF block; 1 where it is absent or unreadable. The first valid entry counts (SHORT,
 * one value, 1 to 8), in the root directory and the EXIF directory in it.
 *
 * @param {Buffer} tiff
 */
function tiffOrientation(tiff) {
  const order = tiff.toString('latin1', 0, 4);
  if ((order !== 'II*\0' && order !== 'MM\0*') || tiff.length < 8) return 1;
  const little = order[0] === 'I';
  const u16 = (at) => (little ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at));
  const u32 = (at) => (little ? tiff.readUInt32LE(at) : tiff.readUInt32BE(at));
  const inDirectory = (offset, isRoot) => {
    if (offset + 2 > tiff.length) return 0;
    // Promised but missing entries are ignored.
    const count = Math.min(u16(offset), Math.floor((tiff.length - offset - 2) / ENTRY_BYTES));
    for (let i = 0; i < count; i += 1) {
      const at = offset + 2 + i * ENTRY_BYTES;
      const [tag, kind, values] = [u16(at), u16(at + 2), u32(at + 4)];
      if (values !== 1) continue;
      if (tag === ORIENTATION_TAG && kind === SHORT && u16(at + 8) >= 1 && u16(at + 8) <= 8) return u16(at + 8);
      if (isRoot && tag === SUB_DIRECTORY_TAG && kind === LONG) {
        const found = inDirectory(u32(at + 8), false);
        if (found > 0) return found;
      }
    }
    return 0;
  };
  return inDirectory(u32(4), true) || 1;
}
