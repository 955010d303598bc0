// Chat, stored completions, completions, responses, embeddings and batches through the official package.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { BASE, client, listed } from './client.mjs';

const QUESTION = [{ role: 'user', content: 'What is the code of room 3?' }];
const chat = (more) =>
  client.chat.completions.create({ model: BASE, messages: QUESTION, max_completion_tokens: 6, temperature: 0, ...more });
const respond = (more) =>
  client.responses.create({ model: BASE, input: 'Say hi.', max_output_tokens: 6, temperature: 0, ...more });

test('a chat completion', async () => {
  const answer = await chat({ n: 2, temperature: 1 });
  assert.equal(answer.object, 'chat.completion');
  assert.equal(answer.choices.length, 2);
  assert.ok(answer.usage.completion_tokens > 0);
});

test('a streamed chat completion says its usage', async () => {
  let said = '';
  let usage = null;
  for await (const chunk of await chat({ stream: true, stream_options: { include_usage: true } })) {
    said += chunk.choices[0]?.delta?.content ?? '';
    usage = chunk.usage ?? usage;
  }
  assert.equal(said, (await chat()).choices[0].message.content);
  assert.ok(usage.total_tokens > 0);
});

test('a stored completion comes back, is listed, changed and deleted', async () => {
  const answer = await chat({ store: true, metadata: { from: 'npm' } });
  const { completions } = client.chat;
  assert.deepEqual((await completions.retrieve(answer.id)).metadata, { from: 'npm' });
  const ids = (await listed(completions.list({ metadata: { from: 'npm' }, limit: 1 }))).map((each) => each.id);
  assert.ok(ids.includes(answer.id));
  const [message] = await listed(completions.messages.list(answer.id));
  assert.equal(message.content, QUESTION[0].content);
  const changed = await completions.update(answer.id, { metadata: { from: 'elsewhere' } });
  assert.deepEqual(changed.metadata, { from: 'elsewhere' });
  assert.equal((await completions.delete(answer.id)).deleted, true);
  await assert.rejects(completions.retrieve(answer.id), OpenAI.NotFoundError);
});

test('a completion, whole and streamed', async () => {
  const asked = { model: BASE, prompt: 'Room 3 opens', max_tokens: 4, temperature: 0 };
  const whole = await client.completions.create(asked);
  let said = '';
  for await (const chunk of await client.completions.create({ ...asked, stream: true })) said += chunk.choices[0].text;
  assert.equal(said, whole.choices[0].text);
});

test('a response is kept, read again, streamed again and deleted', async () => {
  const response = await respond({ metadata: { from: 'npm' } });
  const kept = await client.responses.retrieve(response.id);
  assert.equal(kept.output_text, response.output_text);
  const [item] = await listed(client.responses.inputItems.list(response.id));
  assert.equal(item.content[0].text, 'Say hi.');
  const kinds = [];
  for await (const event of await client.responses.retrieve(response.id, { stream: true })) kinds.push(event.type);
  assert.equal(kinds[0], 'response.created');
  assert.equal(kinds.at(-1), `response.${response.status}`);
  await assert.rejects(client.responses.cancel(response.id), OpenAI.BadRequestError);
  await client.responses.delete(response.id);
  await assert.rejects(client.responses.retrieve(response.id), OpenAI.NotFoundError);
});

test('a streamed response ends with itself', async () => {
  const events = await listed(await respond({ stream: true }));
  assert.equal(events[0].type, 'response.created');
  assert.match(events.at(-1).type, /^response\.(completed|incomplete)$/);
  assert.equal(events.at(-1).response.model, BASE);
});

test('input tokens are counted, and a conversation is made short', async () => {
  const counted = await client.responses.inputTokens.count({ model: BASE, input: 'Say hi.' });
  assert.ok(counted.input_tokens > 0);
  const first = await respond({ input: 'My name is Ada.' });
  const short = await client.responses.compact({ model: BASE, previous_response_id: first.id });
  assert.equal(short.object, 'response.compaction');
  assert.deepEqual(short.output.map((item) => item.type), ['message', 'compaction']);
  const next = await respond({ input: [...short.output, { role: 'user', content: 'Who am I?' }] });
  assert.ok(next.output_text);
});

test('embeddings are refused with a reason', async () => {
  await assert.rejects(client.embeddings.create({ model: BASE, input: 'x' }), (error) => {
    assert.equal(error.code, 'model_not_supported');
    return error instanceof OpenAI.BadRequestError;
  });
});

test('a batch is made, seen, listed and cancelled', async () => {
  const body = { model: BASE, messages: QUESTION, max_tokens: 2 };
  const line = JSON.stringify({ custom_id: 'a', method: 'POST', url: '/v1/chat/completions', body });
  const file = await client.files.create({ file: new File([line], 'batch.jsonl'), purpose: 'batch' });
  const batch = await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
    metadata: { from: 'npm' },
  });
  assert.equal(batch.object, 'batch');
  const ids = (await listed(client.batches.list({ limit: 1 }), 50)).map((each) => each.id);
  assert.ok(ids.includes(batch.id));
  try {
    assert.match((await client.batches.cancel(batch.id)).status, /^cancell(ing|ed)$/);
  } catch (error) {
    // One line may be answered before the cancel comes.
    assert.ok(error instanceof OpenAI.BadRequestError, error);
    assert.equal((await client.batches.retrieve(batch.id)).status, 'completed');
  }
  assert.equal((await client.batches.retrieve(batch.id)).metadata.from, 'npm');
});
