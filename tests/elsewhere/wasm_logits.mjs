// Logits of graphs in the WebAssembly build of ONNX Runtime, which is the one that runs in a browser.
//
// Reads {"graphs": {name: path}, "inputs": {name: rows of whole numbers, all of one length}} from standard input,
// writes {name: {output: its values, row after row}} to standard output.

import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import * as ort from 'onnxruntime-web';

ort.env.wasm.numThreads = 1; // more of them are workers, which would keep this process alive

const { graphs, inputs } = JSON.parse(await text(process.stdin));
const feeds = Object.fromEntries(
  Object.entries(inputs).map(([name, rows]) => [
    name,
    new ort.Tensor('int64', BigInt64Array.from(rows.flat().map(BigInt)), [rows.length, rows[0].length]),
  ]),
);
const found = {};
for (const [name, path] of Object.entries(graphs)) {
  const graph = new Uint8Array(await readFile(path));
  const session = await ort.InferenceSession.create(graph, { executionProviders: ['wasm'] });
  found[name] = {};
  for (const [output, tensor] of Object.entries(await session.run(feeds))) {
    found[name][output] = Array.from(tensor.data);
  }
  await session.release();
}
process.stdout.write(JSON.stringify(found));
