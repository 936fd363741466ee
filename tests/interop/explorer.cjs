// Opens notebook 00 in JupyterLab with Debian's Chromium, runs all cells, types a thread id into the explorer, and prints
// what it shows before and after as one line of JSON. Requests to any other host than the server's are blocked.
// Arguments: folder of the npm packages, path of the browser, URL of the notebook, thread id, folder for screenshots.
"use strict";

const path = require("node:path");
const [packages, browserPath, url, threadId, screenshots] = process.argv.slice(2);
const { chromium } = require(path.join(packages, "node_modules", "playwright-core"));

const TIMEOUT_MILLISECONDS = 240_000;

async function main() {
  const browser = await chromium.launch({
    executablePath: browserPath,
    args: ["--no-sandbox", "--no-proxy-server", "--disable-dev-shm-usage", "--disable-background-networking"],
  });
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 1600 } });
    page.setDefaultTimeout(TIMEOUT_MILLISECONDS);
    const blocked = [];
    const own = new URL(url).host;
    await page.route("**/*", (route) => {
      const target = new URL(route.request().url());
      if (target.host === own || ["data:", "blob:"].includes(target.protocol)) return route.continue();
      blocked.push(target.href);
      return route.abort();
    });
    await page.goto(url);
    await page.waitForFunction(() => window.jupyterapp !== undefined);
    await page.locator(".jp-NotebookPanel .jp-CodeCell").first().waitFor();
    await page.evaluate(async () => {
      const app = window.jupyterapp;
      await app.restored;
      const panel = app.shell.currentWidget;
      await panel.context.ready;
      await panel.sessionContext.ready;
      await app.commands.execute("notebook:run-all-cells");
    });
    const explorer = page.locator(".bridgekit-explorer");
    await explorer.scrollIntoViewIfNeeded();
    const status = explorer.locator("[role=status]");
    await explorer.locator("[role=status]", { hasText: "as committed: " }).waitFor();
    const before = await status.textContent();
    await explorer.locator("select").first().selectOption("fix 1");
    const input = explorer.locator("input[type=text]").first();
    await input.fill(threadId);
    await input.press("Enter");
    await explorer.locator("[role=status]", { hasText: "fix 1: " }).waitFor();
    await explorer.locator("[role=status]", { hasText: /alice-0/ }).waitFor();
    await page.waitForFunction(
      (id) => document.querySelector(".bridgekit-explorer img")?.alt.startsWith("fix 1") &&
        document.querySelector(".bridgekit-explorer input[type=text]").value === id, threadId);
    const after = await status.textContent();
    const rates = await explorer.locator("table").evaluate(
      (table) => [...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent)));
    await explorer.screenshot({ path: path.join(screenshots, "explorer.png") });
    await page.screenshot({ path: path.join(screenshots, "jupyterlab.png") });
    await input.fill("a, a");
    await input.press("Enter");
    const refusal = await explorer.locator("[role=alert]").textContent();
    await page.screenshot({ path: path.join(screenshots, "refusal.png") });
    console.log(JSON.stringify({ before, after, rates, refusal, blocked }));
  } finally {
    await browser.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
