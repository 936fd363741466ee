// An independent client: the npm package `ws` under Node, with one socket for each subscription. It reads the
// subscriptions from standard input and prints what it reads line by line, as tests/observers/independent_clients.py
// describes. The first argument is the folder in which `ws` is installed.
"use strict";

const { createRequire } = require("node:module");
const { readFileSync } = require("node:fs");
const WebSocket = createRequire(`${process.argv[2]}/`)("ws");

const printLine = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

for (const { number, url, user_id, thread_id } of JSON.parse(readFileSync(0, "utf8"))) {
  const socket = new WebSocket(`${url}/ws?${new URLSearchParams({ user_id, thread_id })}`);
  socket.on("message", (data, isBinary) => {
    if (isBinary) throw new Error(`socket ${number} read a binary frame`);
    printLine({ socket: number, text: data.toString("utf8") });
  });
  socket.on("close", (code) => printLine({ socket: number, closed: code }));
}
