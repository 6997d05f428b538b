"""Operations on the chain: blocks of all kinds, reorgs by command and by a longer branch from
elsewhere.
"""

from ledger import apply
from node import RpcError

"""No reorg goes below this: the funding of the purse stays."""
FLOOR = 151


def generate(world):
    """Blocks with everything in the mempool."""
    for _ in range(world.random.choice((1, 1, 1, 2, 3))):
        _generate(world)


def _generate(world):
    address = world.miner()
    try:
        hashes = world.node.rpc("generatetoaddress", 1, address.text)
        world.say(f"generate {hashes[0]} to {world.name(address.script)}")
    except RpcError as refusal:
        # The very block that was invalidated before, made in the same second.
        world.say(f"generate: {refusal.message}")


def generate_many(world):
    for _ in range(world.random.randrange(10, 40)):
        _generate(world)


def extend(world, txs, height=None):
    ledger = world.ledger
    block, raw = world.build(ledger.tip, ledger.height + 1, ledger.median_time(ledger.height), txs)
    world.hand_in(block, raw)


def empty(world):
    extend(world, [])


def selected(world):
    """A block with some of the mempool."""
    ledger = world.ledger
    extend(
        world,
        world.choose_txs(dict(ledger.coins), ledger.height + 1, list(ledger.mempool.values()), 0.5),
    )


def rivals(world, coins, txs, count):
    """Transactions that nobody has seen and that spend what some of `txs` spend."""
    made = []
    pool = [
        tx for tx in txs if not tx.coinbase and any(outpoint in coins for outpoint in tx.inputs)
    ]
    for tx in world.random.sample(pool, min(len(pool), count)):
        inputs = [(outpoint, coins[outpoint]) for outpoint in tx.inputs if outpoint in coins]
        inputs = [item for item in inputs if item[1].script in world.keys.by_script]
        inputs = inputs and world.random.sample(inputs, world.random.randrange(1, len(inputs) + 1))
        total = sum(coin.value for _, coin in inputs)
        outputs = (
            [(total // 2, world.payee().script)]
            if world.random.random() < 0.4
            else [(total // 2, world.stranger())]
        )
        rival = world.pay(inputs, outputs) if inputs and total > 10_000 else None
        if rival:
            world.ledger.txs[rival.txid] = rival
            world.say(f"rival of {tx.txid[:12]}: {rival.txid} {world.describe(rival)}")
            made.append(rival)
    return made


def conflict(world):
    """A block that spends otherwise what the mempool spends, by new transactions and by former
    ones, with a child inside the block.
    """
    ledger = world.ledger
    coins = dict(ledger.coins)
    made = rivals(world, coins, list(ledger.mempool.values()), world.random.randrange(1, 4))
    former = ledger.former(coins)
    if former and world.random.random() < 0.5:
        made += world.random.sample(former, min(len(former), 3))
    txs = world.choose_txs(coins, ledger.height + 1, made, 1.0)
    txs += children(world, coins, txs)
    txs += world.choose_txs(coins, ledger.height + 1, list(ledger.mempool.values()), 0.5)
    extend(world, txs)


def children(world, coins, txs):
    """Unseen transactions that spend inside the block."""
    made = []
    for tx in txs:
        own = [
            ((tx.txid, n), coins[(tx.txid, n)])
            for n, (_, script) in enumerate(tx.outputs)
            if script in world.keys.by_script
        ]
        own = [item for item in own if item[0] in coins and item[1].value > 20_000]
        if own and world.random.random() < 0.5:
            inputs = world.random.sample(own, 1)
            child = world.pay(inputs, [(inputs[0][1].value // 2, world.payee().script)])
            if child:
                world.ledger.txs[child.txid] = child
                apply(coins, child, world.ledger.height + 1)
                made.append(child)
    return made


def odd(world):
    """A block with a transaction that no mempool would take: zero values, dust, bare keys and bare
    multisig, data.
    """
    coins = world.purse_coins(60_000_000, confirmed_only=True)
    if not coins:
        return empty(world)
    payee = world.payee()
    multisig = b"\x51" + payee.bare[:-1] + world.payee().bare[:-1] + b"\x52\xae"
    outputs = [
        (0, payee.script),
        (1, payee.script),
        (world.amount(), payee.bare),
        (world.amount(), multisig),
    ]
    outputs += [
        (0, b"\x6a\x04soak"),
        (5, b"\x6a\x01x"),
        (world.amount(), b"\x52\x02\x00\x01"),
        (world.amount(), world.payee().script),
    ]
    tx = world.pay([world.random.choice(coins)], outputs)
    world.say(f"odd {tx.txid} {world.describe(tx)}")
    extend(world, [tx])


def depth(world, most):
    return min(world.random.randrange(1, most + 1), world.ledger.height - FLOOR)


def invalidate(world, most=12):
    """Back by command: no block is published. Then nothing, a few blocks, or a longer branch."""
    ledger = world.ledger
    back = depth(world, most)
    if back < 1:
        return generate(world)
    victim = ledger.chain[ledger.height - back + 1]
    world.node.rpc("invalidateblock", victim)
    world.invalidated.append(victim)
    world.say(f"invalidate {victim}, {back} deep")
    new = world.random.choice((0, world.random.randrange(0, back + 1), back, back + 1))
    for _ in range(new):
        world.ledger.refresh()
        world.random.choice((_generate, empty, selected, conflict))(world)
    return None


def invalidate_deep(world):
    invalidate(world, 60)


def reconsider(world):
    if not world.invalidated:
        return generate(world)
    victim = world.invalidated.pop(world.random.randrange(len(world.invalidated)))
    try:
        world.node.rpc("reconsiderblock", victim)
        world.say(f"reconsider {victim}")
    except RpcError as refusal:
        # A node that was killed has lost it.
        world.say(f"reconsider {victim}: {refusal.message}")
    return None


# What `submitblock` says of a block that it keeps: it is the tip, or on a branch that is not, or
# was there before.
TAKEN = (None, "inconclusive", "duplicate", "duplicate-inconclusive")


def branch(world, most=12, longer=None):
    """A rival branch as from another miner: blocks are kept until they have more work, then the
    node switches in one go.
    """
    ledger = world.ledger
    back = depth(world, most)
    if back < 1:
        return generate(world)
    base = ledger.height - back
    coins = ledger.coins_at(base)
    undone = [
        tx
        for height in range(base + 1, ledger.height + 1)
        for tx in ledger.blocks[ledger.chain[height]].txs
        if not tx.coinbase
    ]
    made = (
        rivals(world, coins, undone, world.random.randrange(0, 3))
        if world.random.random() < 0.6
        else []
    )
    waiting = made + undone + list(ledger.mempool.values())
    times = [ledger.blocks[block_hash].time for block_hash in ledger.chain[base - 10 : base + 1]]
    previous = ledger.chain[base]
    longer = world.random.choice((1, 1, 2, 3)) if longer is None else longer
    world.say(f"branch from {base}, {back} deep, {back + longer} blocks")
    blocks = []
    for height in range(base + 1, base + back + longer + 1):
        txs = world.choose_txs(coins, height, waiting, world.random.choice((0, 0.3, 1)))
        taken = {tx.txid for tx in txs}
        waiting = [tx for tx in waiting if tx.txid not in taken]
        payee = None
        if height <= ledger.height and world.random.random() < 0.4:
            payee = ledger.blocks[ledger.chain[height]].txs[0].outputs[0][1]
        block, raw = world.build(previous, height, sorted(times[-11:])[5], txs, payee)
        blocks.append((block, raw))
        apply(coins, block.txs[0], height)
        previous = block.hash
        times.append(block.time)
    for block, raw in blocks:
        if world.hand_in(block, raw) not in TAKEN:
            # What was undone may be more than one block has room for; the rest of the branch goes
            # with it.
            return None
    return previous


def branch_deep(world):
    branch(world, 40)


def equal_branch(world):
    """A branch as long as ours, to which the node is told to switch."""
    tip = branch(world, 4, longer=0)
    if tip:
        world.node.rpc("preciousblock", tip)
        world.say(f"precious {tip}")
