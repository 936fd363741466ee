// A witness: the npm package `ws` under Node, one socket a seat. Reads its seats from standard input and says what
// it reads line by line, as tests/observers/attendance.py describes. The first argument is where `ws` was installed.
"use strict";

const { createRequire } = require("node:module");
const { readFileSync } = require("node:fs");
const WebSocket = createRequire(`${process.argv[2]}/`)("ws");

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

for (const { number, url, user_id, thread_id } of JSON.parse(readFileSync(0, "utf8"))) {
  const socket = new WebSocket(`${url}/ws?${new URLSearchParams({ user_id, thread_id })}`);
  socket.on("message", (data, isBinary) => {
    if (isBinary) throw new Error(`socket ${number} read a frame that is no text`);
    say({ socket: number, text: data.toString("utf8") });
  });
  socket.on("close", (code) => say({ socket: number, closed: code }));
}
