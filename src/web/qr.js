// QR codes as ISO 18004 has them: bytes, level M, versions 1 to 6 (up to 106 bytes: an address with an
// amount, and often its label).

const CHECKS = [0, 10, 16, 26, 18, 24, 16];
const BLOCKS = [0, 1, 1, 1, 2, 2, 4];

/// Rows of modules, `true` is dark; null for a text that is too long.
export function qr(text) {
  const bytes = new TextEncoder().encode(text);
  for (let version = 1; version < CHECKS.length; version++) {
    const room = (modules(version) >> 3) - CHECKS[version] * BLOCKS[version];
    if (bytes.length + 2 <= room) return draw(version, withChecks(version, packed(bytes, room)));
  }
  return null;
}

/// The path of an SVG image of it, with a quiet zone of four modules.
export const qrPath = (rows) => rows.map((row, y) => row.map((dark, x) => (dark ? `M${x + 4} ${y + 4}h1v1h-1z` : "")).join("")).join("");

/// Modules that hold data, error correction included.
function modules(version) {
  return (16 * version + 128) * version + (version < 2 ? 64 : 39);
}

function packed(bytes, room) {
  const hex = (value, digits) => value.toString(16).padStart(digits, "0");
  const text = `4${hex(bytes.length, 2)}${[...bytes].map((byte) => hex(byte, 2)).join("")}0`;
  const data = text.match(/../g).map((pair) => parseInt(pair, 16));
  for (let pad = 0xec; data.length < room; pad ^= 0xec ^ 0x11) data.push(pad);
  return data;
}

function times(a, b) {
  let product = 0;
  for (let at = 7; at >= 0; at--) product = (product << 1) ^ ((product >> 7) * 0x11d) ^ (((b >> at) & 1) * a);
  return product;
}

function checks(data, divisor) {
  const rest = divisor.map(() => 0);
  for (const byte of data) {
    const factor = byte ^ rest.shift();
    rest.push(0);
    divisor.forEach((value, at) => (rest[at] ^= times(value, factor)));
  }
  return rest;
}

/// Data in blocks, each with its error correction, interleaved.
function withChecks(version, data) {
  const [size, blocks] = [CHECKS[version], BLOCKS[version]];
  const divisor = Array(size).fill(0).fill(1, size - 1);
  for (let root = 1, at = 0; at < size; at++, root = times(root, 2)) {
    for (let j = 0; j < size; j++) divisor[j] = times(divisor[j], root) ^ (divisor[j + 1] ?? 0);
  }
  const each = Math.floor(data.length / blocks);
  const short = blocks - (data.length % blocks);
  const start = (block) => block * each + Math.max(0, block - short);
  const parts = Array.from({ length: blocks }, (_, block) => data.slice(start(block), start(block + 1)));
  const weave = (lists, length) => Array.from({ length }, (_, at) => lists.map((list) => list[at])).flat().filter((byte) => byte !== undefined);
  return [...weave(parts, each + 1), ...weave(parts.map((part) => checks(part, divisor)), size)];
}

function draw(version, bytes) {
  const size = version * 4 + 17;
  const rows = Array.from({ length: size }, () => Array(size).fill(null));
  const set = (x, y, dark) => (rows[y][x] = Boolean(dark));
  drawPatterns(version, size, set);
  drawFormat(size, set);
  let at = 0;
  for (let right = size - 1; right >= 1; right -= 2) {
    if (right === 6) right = 5;
    for (let step = 0; step < size; step++) {
      const y = ((right + 1) & 2) === 0 ? size - 1 - step : step;
      for (const x of [right, right - 1]) {
        if (rows[y][x] !== null) continue;
        // The mask is a checkerboard: readers take any.
        set(x, y, (((bytes[at >> 3] ?? 0) >> (7 - (at & 7))) & 1) ^ ((x + y + 1) & 1));
        at++;
      }
    }
  }
  return rows;
}

function drawPatterns(version, size, set) {
  for (let at = 0; at < size; at++) {
    set(6, at, at % 2 === 0);
    set(at, 6, at % 2 === 0);
  }
  const square = (cx, cy, reach, light) => {
    for (let y = -reach; y <= reach; y++) {
      for (let x = -reach; x <= reach; x++) {
        const isIn = [cx + x, cy + y].every((at) => at >= 0 && at < size);
        if (isIn) set(cx + x, cy + y, !light.includes(Math.max(Math.abs(x), Math.abs(y))));
      }
    }
  };
  for (const [x, y] of [[3, 3], [size - 4, 3], [3, size - 4]]) square(x, y, 4, [2, 4]);
  if (version > 1) square(size - 7, size - 7, 2, [1]);
}

/// Level M with that mask.
function drawFormat(size, set) {
  for (let at = 0; at < 15; at++) {
    const bit = (0x5412 >> at) & 1;
    if (at < 8) {
      set(size - 1 - at, 8, bit);
      set(8, at < 6 ? at : at + 1, bit);
    } else {
      set(8, size - 15 + at, bit);
      set(at === 8 ? 7 : 14 - at, 8, bit);
    }
  }
  set(8, size - 8, true);
}
