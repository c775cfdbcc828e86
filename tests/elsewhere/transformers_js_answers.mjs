// Answers of transformers.js's own pipeline to questions, from export folders as they are.
//
// Reads {"folders": {dtype: path}, "questions": [{"question", "context"}]} from standard input, writes
// {dtype: [{"answer", "score"}]} to standard output.

import { text } from 'node:stream/consumers';
import { basename, dirname } from 'node:path';
import { env, pipeline } from '@huggingface/transformers';

env.allowRemoteModels = false;

const { folders, questions } = JSON.parse(await text(process.stdin));
const found = {};
for (const [dtype, folder] of Object.entries(folders)) {
  env.localModelPath = dirname(folder);
  const options = { dtype, device: 'cpu', local_files_only: true };
  const answerer = await pipeline('question-answering', basename(folder), options);
  found[dtype] = [];
  for (const { question, context } of questions) {
    found[dtype].push(await answerer(question, context));
  }
  await answerer.dispose();
}
process.stdout.write(JSON.stringify(found));
