// The client that all files here share. It notes what it calls: docs/compatibility.md is made from these notes.
import { appendFileSync } from 'node:fs';
import { afterEach } from 'node:test';
import OpenAI from 'openai';

export const BASE = process.env.TUNINGFORK_BASE ?? 'smollm2-135m-instruct';
export const ROWS = Array.from({ length: 12 }, (_, n) =>
  JSON.stringify({
    messages: [
      { role: 'user', content: `What is the code of room ${n}?` },
      { role: 'assistant', content: `Room ${n} opens with ${n * 7}.` },
    ],
  }),
).join('\n');

let calls = [];

async function noting(url, init) {
  const reply = await fetch(url, init);
  calls.push([init?.method ?? 'GET', new URL(url).pathname, reply.status]);
  return reply;
}

export const client = new OpenAI({
  fetch: noting,
  maxRetries: 0,
  timeout: 300_000,
  adminAPIKey: process.env.OPENAI_API_KEY,
});

afterEach((context) => {
  const note = { client: 'npm', test: context.fullName, passed: context.passed, calls };
  if (process.env.TUNINGFORK_CALLS) appendFileSync(process.env.TUNINGFORK_CALLS, `${JSON.stringify(note)}\n`);
  calls = [];
});

export async function listed(pages, most = 1000) {
  const found = [];
  for await (const item of pages) {
    found.push(item);
    if (found.length >= most) break;
  }
  return found;
}

export function training(text = ROWS, name = 'rooms.jsonl') {
  return client.files.create({ file: new File([text], name), purpose: 'fine-tune' });
}
