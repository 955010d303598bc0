// Errors as classes, webhooks and the admin calls through the official package.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import OpenAI from 'openai';
import { BASE, client, listed } from './client.mjs';

test('errors come as their classes, with their fields', async () => {
  const stranger = client.withOptions({ apiKey: 'sk-tf-nobody' });
  await assert.rejects(listed(stranger.models.list()), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.code, 'invalid_api_key');
    assert.match(error.requestID, /^req_/);
    return true;
  });
  const missing = client.chat.completions.create({ model: 'gpt-9', messages: [{ role: 'user', content: 'x' }] });
  await assert.rejects(missing, (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, 'model_not_found');
    return true;
  });
  const wrong = client.chat.completions.create({ model: BASE, messages: [], chat_template: 'x' });
  await assert.rejects(wrong, (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.deepEqual([error.param, error.code], ['chat_template', 'unknown_parameter']);
    return true;
  });
});

test('an answer shows its request id and limits', async () => {
  const asked = client.chat.completions.create({
    model: BASE,
    messages: [{ role: 'user', content: 'x' }],
    max_completion_tokens: 1,
  });
  const { response, request_id: id } = await asked.withResponse();
  assert.match(id, /^req_/);
  assert.ok(Number(response.headers.get('x-ratelimit-limit-requests')) > 0);
});

test('webhook endpoints: made, seen, changed, tried, their secret turned, and gone', async () => {
  const { webhooks } = client;
  assert.ok((await webhooks.eventTypes.list()).data.includes('fine_tuning.job.succeeded'));
  const made = await webhooks.create({
    name: 'npm',
    url: 'https://hooks.invalid/a',
    event_types: ['fine_tuning.job.succeeded'],
  });
  assert.match(made.signing_secret, /^whsec_/);
  assert.equal((await webhooks.retrieve(made.id)).signing_secret, undefined);
  assert.equal((await webhooks.update(made.id, { name: 'other' })).name, 'other');
  const turned = await webhooks.rotateSecret(made.id, { keep_old_secret_active_for_24_hours: true });
  assert.notEqual(turned.signing_secret, made.signing_secret);
  await assert.rejects(webhooks.test(made.id, { event_type: 'fine_tuning.job.succeeded' }), OpenAI.BadRequestError);
  const ids = (await listed(webhooks.list({ limit: 1 }))).map((each) => each.id);
  assert.ok(ids.includes(made.id));
  assert.equal((await webhooks.delete(made.id)).deleted, true);
});

test('a signed delivery is unwrapped, a forged one is not', async () => {
  const secret = `whsec_${Buffer.from('x'.repeat(32)).toString('base64')}`;
  const now = Math.floor(Date.now() / 1000);
  const event = { object: 'event', id: 'evt_1', type: 'fine_tuning.job.succeeded', created_at: now, data: { id: 'ftjob-1' } };
  const body = JSON.stringify(event);
  const signature = createHmac('sha256', Buffer.from('x'.repeat(32))).update(`evt_1.${now}.${body}`).digest('base64');
  const headers = { 'webhook-id': 'evt_1', 'webhook-timestamp': String(now), 'webhook-signature': `v1,${signature}` };
  assert.deepEqual(await client.webhooks.unwrap(body, headers, secret), event);
  const forged = client.webhooks.unwrap(body.replace('ftjob-1', 'ftjob-2'), headers, secret);
  await assert.rejects(forged, OpenAI.InvalidWebhookSignatureError);
});

test('the admin calls: a project, its robot and its limits', async () => {
  const { organization } = client.admin;
  const name = `npm ${Date.now()}`;
  const project = await organization.projects.create({ name });
  assert.equal((await organization.projects.retrieve(project.id)).name, name);
  assert.equal((await organization.projects.update(project.id, { name: `${name}!` })).name, `${name}!`);
  const { serviceAccounts, rateLimits, apiKeys } = organization.projects;
  const robot = await serviceAccounts.create(project.id, { name: 'robot' });
  const theirs = client.withOptions({ apiKey: robot.api_key.value });
  assert.deepEqual(await listed(theirs.files.list()), []);
  assert.equal((await serviceAccounts.retrieve(robot.id, { project_id: project.id })).name, 'robot');
  assert.equal((await listed(serviceAccounts.list(project.id))).length, 1);
  const [key] = await listed(apiKeys.list(project.id));
  assert.equal((await apiKeys.retrieve(key.id, { project_id: project.id })).owner.type, 'service_account');
  const [limit] = await listed(rateLimits.listRateLimits(project.id));
  assert.equal(limit.model, BASE);
  assert.equal((await serviceAccounts.delete(robot.id, { project_id: project.id })).deleted, true);
  const ids = (await listed(organization.projects.list({ limit: 1 }))).map((each) => each.id);
  assert.ok(ids.includes(project.id));
  assert.equal((await organization.projects.archive(project.id)).status, 'archived');
});

test('users, usage and the audit log', async () => {
  const { organization } = client.admin;
  const [owner] = await listed(organization.users.list());
  assert.equal((await organization.users.retrieve(owner.id)).role, 'owner');
  const usage = await organization.usage.completions({ start_time: 0 });
  assert.equal(usage.object, 'page');
  const [entry] = await listed(organization.auditLogs.list({ limit: 1 }), 1);
  assert.ok(entry.effective_at > 0);
});
