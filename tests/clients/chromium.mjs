// Headless Chromium with a profile of its own. CHROMIUM names it; otherwise it is looked for in PATH.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

// Packages are found through NODE_PATH, which `import` does not look at.
const { chromium } = createRequire(import.meta.url)("playwright-core");

// Without a sandbox because tests may run as root; the rest keeps the browser from calling home.
const FLAGS =
  "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";

export async function openChromium(flags = []) {
  const profile = mkdtempSync(join(tmpdir(), "satwatch-chromium-"));
  const options = { executablePath: chromiumPath(), headless: true, args: [...FLAGS.split(" "), ...flags] };
  const context = await chromium.launchPersistentContext(profile, options);
  const close = async () => {
    await context.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return { context, close };
}

function chromiumPath() {
  const names = process.env.CHROMIUM ? [process.env.CHROMIUM] : ["chromium", "chromium-browser", "google-chrome"];
  const folders = ["", ...(process.env.PATH ?? "").split(delimiter)];
  const found = names.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => path.startsWith("/") && existsSync(path));
  if (!found) throw new Error("there is no Chromium: install it, or set CHROMIUM to its path");
  return found;
}
