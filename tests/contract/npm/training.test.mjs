// Files, uploads, jobs, checkpoints' permissions, graders and models through the official package.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import OpenAI from 'openai';
import { BASE, ROWS, client, listed, training } from './client.mjs';

test('a file goes up, comes back byte for byte, and goes', async () => {
  const file = await training();
  assert.equal(file.object, 'file');
  assert.equal(file.bytes, ROWS.length);
  assert.equal((await client.files.retrieve(file.id)).filename, 'rooms.jsonl');
  assert.equal(await (await client.files.content(file.id)).text(), ROWS);
  assert.equal((await client.files.waitForProcessing(file.id)).status, 'processed');
  assert.deepEqual(await client.files.delete(file.id), { id: file.id, object: 'file', deleted: true });
  await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
});

test('a file may expire', async () => {
  const file = await client.files.create({
    file: new File(['x'], 'note.txt'),
    purpose: 'user_data',
    expires_after: { anchor: 'created_at', seconds: 3600 },
  });
  assert.equal(file.expires_at, file.created_at + 3600);
});

test('a wrong line is named', async () => {
  await assert.rejects(training(`${ROWS}\n{`), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.match(error.message, /line 13/i);
    return true;
  });
});

test('files are listed page by page', async () => {
  const made = [await training(ROWS, 'a.jsonl'), await training(ROWS, 'b.jsonl'), await training(ROWS, 'c.jsonl')];
  const found = await listed(client.files.list({ limit: 2, purpose: 'fine-tune', order: 'desc' }));
  const ids = found.map((file) => file.id);
  for (const file of made) assert.ok(ids.includes(file.id));
  assert.equal(new Set(ids).size, ids.length);
});

test('an upload in parts becomes a file', async () => {
  const upload = await client.uploads.create({
    bytes: ROWS.length,
    filename: 'big.jsonl',
    mime_type: 'text/jsonl',
    purpose: 'fine-tune',
  });
  const second = await client.uploads.parts.create(upload.id, { data: new File([ROWS.slice(500)], 'part') });
  const first = await client.uploads.parts.create(upload.id, { data: new File([ROWS.slice(0, 500)], 'part') });
  const md5 = createHash('md5').update(ROWS).digest('hex');
  const done = await client.uploads.complete(upload.id, { part_ids: [first.id, second.id], md5 });
  assert.equal(done.status, 'completed');
  assert.equal(await (await client.files.content(done.file.id)).text(), ROWS);
});

test('a cancelled upload takes nothing more', async () => {
  const asked = { bytes: 3, filename: 'a.txt', mime_type: 'text/plain', purpose: 'user_data' };
  const upload = await client.uploads.create(asked);
  assert.equal((await client.uploads.cancel(upload.id)).status, 'cancelled');
  const late = client.uploads.parts.create(upload.id, { data: new File(['abc'], 'part') });
  await assert.rejects(late, OpenAI.BadRequestError);
});

test('a job is made, seen, listed, watched and cancelled', async () => {
  const file = await training();
  const job = await client.fineTuning.jobs.create({
    model: BASE,
    training_file: file.id,
    suffix: 'npm',
    seed: 7,
    metadata: { from: 'npm' },
    method: { type: 'supervised', supervised: { hyperparameters: { n_epochs: 1, batch_size: 4 } } },
  });
  assert.equal(job.object, 'fine_tuning.job');
  assert.equal(job.method.supervised.hyperparameters.batch_size, 4);
  assert.equal((await client.fineTuning.jobs.retrieve(job.id)).seed, 7);
  const cancelled = await client.fineTuning.jobs.cancel(job.id);
  assert.equal(cancelled.status, 'cancelled');
  const ids = (await listed(client.fineTuning.jobs.list({ limit: 1 }), 50)).map((each) => each.id);
  assert.ok(ids.includes(job.id));
  const events = await listed(client.fineTuning.jobs.listEvents(job.id, { limit: 1 }));
  assert.equal(events.at(-1).message, `Created fine-tuning job: ${job.id}`);
  assert.deepEqual(await listed(client.fineTuning.jobs.checkpoints.list(job.id)), []);
  await assert.rejects(client.fineTuning.jobs.cancel(job.id), OpenAI.BadRequestError);
});

test('a form that cannot work names its field', async () => {
  const file = await training();
  const wrong = client.fineTuning.jobs.create({ model: BASE, training_file: file.id, suffix: '!' });
  await assert.rejects(wrong, (error) => error instanceof OpenAI.BadRequestError && error.param === 'suffix');
  const missing = client.fineTuning.jobs.create({ model: BASE, training_file: 'file-nothere' });
  await assert.rejects(missing, (error) => error.status === 400 && error.param === 'training_file');
});

test('permissions of a checkpoint that is not there', async () => {
  const { permissions } = client.fineTuning.checkpoints;
  await assert.rejects(permissions.create('ft:none', { project_ids: ['proj_x'] }), OpenAI.NotFoundError);
  await assert.rejects(listed(permissions.list('ft:none')), OpenAI.NotFoundError);
  const gone = permissions.delete('cp_x', { fine_tuned_model_checkpoint: 'ft:none' });
  await assert.rejects(gone, OpenAI.NotFoundError);
});

const CHECK = {
  type: 'string_check',
  name: 'right',
  input: '{{sample.output_text}}',
  reference: '{{item.answer}}',
  operation: 'eq',
};

test('a grader is validated and run', async () => {
  const { graders } = client.fineTuning.alpha;
  assert.deepEqual((await graders.validate({ grader: CHECK })).grader, CHECK);
  const result = await graders.run({ grader: CHECK, model_sample: 'Oslo', item: { answer: 'Oslo' } });
  assert.equal(result.reward, 1);
  assert.equal(result.metadata.errors.other_error, false);
  const wrong = graders.validate({ grader: { ...CHECK, operation: 'near' } });
  await assert.rejects(wrong, (error) => error.status === 400 && error.param === 'grader.operation');
});

test('models are listed and seen; a base model stays', async () => {
  const names = (await listed(client.models.list())).map((model) => model.id);
  assert.ok(names.includes(BASE));
  assert.equal((await client.models.retrieve(BASE)).owned_by, 'system');
  await assert.rejects(client.models.retrieve('gpt-9'), OpenAI.NotFoundError);
  await assert.rejects(client.models.delete(BASE), OpenAI.BadRequestError);
});
