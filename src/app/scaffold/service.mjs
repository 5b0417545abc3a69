#!/usr/bin/env node
// /// agent
// about = "@NAME@: say in one line what it does"
// heartbeat = "5m"
// ///
import { appendFileSync } from "node:fs";

// Any change of this file is a sign of life; progress that rises says that something gets done.
function beat(progress) {
  appendFileSync(process.env.NIGHTCREW_HEARTBEAT, `${new Date().toISOString()} progress=${progress}\n`);
}

let progress = 0;
function round() {
  // The work of one round goes here. What is printed is in `nightcrew logs @NAME@`.
  progress += 1;
  console.log(`round ${progress}`);
  beat(progress);
}

round();
const timer = setInterval(round, 60_000);
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => clearInterval(timer));
