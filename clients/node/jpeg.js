/** The size of a JPEG file out of its headers. */

const SOF = new Set([0xc0, 0xc1, 0xc2, 0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf]);
const ORIENTATION_TAG = 0x0112;

/**
 * @param {Buffer} data a JPEG file
 * @returns {{width: number, height: number}} in pixels as viewers show the picture; zeros where unreadable
 */
export function uprightSize(data) {
  try {
    return read(data);
  } catch {
    return { width: 0, height: 0 }; // a read beyond the end: truncated inside the headers
  }
}

function read(data) {
  if (data.readUInt16BE(0) !== 0xffd8) return { width: 0, height: 0 };
  let orientation = 1;
  for (let at = 2; ; ) {
    if (data[at] !== 0xff) return { width: 0, height: 0 };
    const marker = data[at + 1];
    if (marker === 0xff) {
      at += 1; // fill byte
      continue;
    }
    if (SOF.has(marker)) {
      const [height, width] = [data.readUInt16BE(at + 5), data.readUInt16BE(at + 7)];
      return orientation >= 5 ? { width: height, height: width } : { width, height };
    }
    const end = at + 2 + data.readUInt16BE(at + 2);
    if (marker === 0xe1 && data.toString('latin1', at + 4, at + 10) === 'Exif\0\0') {
      orientation = exifOrientation(data.subarray(at + 10, end));
    }
    at = end;
  }
}

/** @param {Buffer} tiff the EXIF block */
function exifOrientation(tiff) {
  try {
    const little = tiff.toString('latin1', 0, 2) === 'II';
    const u16 = (at) => (little ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at));
    const directory = little ? tiff.readUInt32LE(4) : tiff.readUInt32BE(4);
    for (let i = 0; i < u16(directory); i += 1) {
      const entry = directory + 2 + 12 * i;
      if (u16(entry) === ORIENTATION_TAG) {
        const value = u16(entry + 8);
        return value >= 1 && value <= 8 ? value : 1;
      }
    }
  } catch {
    // broken EXIF: the picture is shown as it is stored
  }
  return 1;
}
