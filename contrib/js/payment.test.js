// A test of one's own program against a node and satwatch of its own:
//
//   SATWATCH_KIT=path/to/satwatch/regtest node --test payment.test.js
//
// Each test takes an address of its own, so they do not meet. Needs nothing but Node.js 18.
'use strict';

const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const path = require('node:path');
const { after, before, test } = require('node:test');

const KIT = process.env.SATWATCH_KIT ?? path.join(__dirname, '..', '..', 'regtest');
const BIN = process.env.SATWATCH_BIN ? ['--bin', process.env.SATWATCH_BIN] : [];

let kit;

before(() => {
  const stdio = ['ignore', 'pipe', 'inherit'];
  kit = JSON.parse(execFileSync(path.join(KIT, 'up.sh'), ['--detach', '--json', ...BIN], { stdio }));
});

after(() => kit && execFileSync(kit.down[0], kit.down.slice(1)));

/** What bitcoin-cli says. */
function cli(...args) {
  return execFileSync(kit.cli[0], [...kit.cli.slice(1), ...args], { encoding: 'utf8' }).trim();
}

/** A request to the daemon: GET, or POST with a body. */
async function ask(route, body) {
  const headers = { 'Content-Type': 'application/json' };
  const options = body && { method: 'POST', headers, body: JSON.stringify(body) };
  const answer = await fetch(kit.url + route, options);
  const said = await answer.json();
  assert.ok(answer.ok, said.error);
  return said;
}

/** A new address that is watched, and the cursor behind which its payments come. */
async function watchedAddress() {
  const address = cli('getnewaddress');
  const { cursor } = await ask('/add_address', { address });
  return { address, cursor };
}

/** The next event of this name about the address, and its cursor. */
async function waitFor(event, address, cursor) {
  for (;;) {
    const query = new URLSearchParams({ address, after: cursor, wait: '30' });
    const page = await ask(`/events?${query}`);
    assert.notEqual(page.events.length, 0, `no ${event} for ${address} within 30 seconds`);
    const found = page.events.find((entry) => entry.event === event);
    if (found) return found;
    cursor = page.next;
  }
}

test('a payment is seen and confirmed', async () => {
  const { address, cursor } = await watchedAddress();
  const txid = cli('sendtoaddress', address, '0.001');
  const seen = await waitFor('new_transactions', address, cursor);
  assert.equal(seen.data.transactions[0].txid, txid);
  cli('-generate', '1');
  const confirmed = await waitFor('transaction_update', address, seen.cursor);
  assert.equal(confirmed.data.status, 'confirmed');
  assert.equal((await ask(`/balance/${address}`)).balance, 100_000);
});
