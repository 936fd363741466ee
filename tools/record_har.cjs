// Opens a page with Debian's Chromium and records a HAR with the messages of its sockets and the bodies of its responses.
// Arguments: folder of the npm packages, path of the browser, URL of the page, file to write.
"use strict";

const path = require("node:path");
const [packages, browserPath, url, har] = process.argv.slice(2);
const { chromium } = require(path.join(packages, "node_modules", "playwright-core"));

async function main() {
  const browser = await chromium.launch({
    executablePath: browserPath,
    args: ["--no-sandbox", "--no-proxy-server", "--disable-dev-shm-usage", "--disable-background-networking"],
  });
  try {
    const context = await browser.newContext({ recordHar: { path: har, content: "embed", mode: "full" } });
    const page = await context.newPage();
    await page.goto(url);
    await page.waitForFunction(() => window.received === true, undefined, { timeout: 60_000 });
    await context.close();
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
