"""Operations on the mempool: payments, spends, chains, replacements, expiry."""

import time


def outputs_for(world, count):
    """To some addresses, now and then several to the same one."""
    payees = []
    for _ in range(count):
        payees.append(
            world.random.choice(payees) if payees and world.random.random() < 0.3 else world.payee()
        )
    return [(world.amount(), payee.script) for payee in payees]


def from_purse(world, outputs, what):
    needed = sum(value for value, _ in outputs) + 100_000
    coins = world.purse_coins(needed)
    if not coins:
        world.say(f"{what}: the purse has no such coin")
        return None
    tx = world.pay([world.random.choice(coins)], outputs)
    return tx if tx and world.send(tx, what) else None


def pay(world):
    from_purse(world, outputs_for(world, world.random.randrange(1, 5)), "pay")


def pay_many(world):
    from_purse(world, outputs_for(world, world.random.randrange(10, 60)), "pay many")


def pay_strangers(world):
    from_purse(
        world,
        [(world.amount(), world.stranger()) for _ in range(world.random.randrange(1, 6))],
        "pay strangers",
    )


def burst(world):
    """Many payments at once, most of them among strangers."""
    for _ in range(world.random.randrange(5, 20)):
        (pay if world.random.random() < 0.3 else pay_strangers)(world)
        world.ledger.refresh()


def flood(world):
    """Many of the crowd's own addresses at once: more events than a client's queue has room for."""
    scripts = sorted(world.crowd.values())
    chosen = world.random.sample(scripts, min(len(scripts), world.random.randrange(100, 400)))
    from_purse(world, [(1000, script) for script in chosen], "flood") if chosen else pay(world)


def spend(world):
    """From watched addresses, of confirmed and unconfirmed outputs; to others, to strangers, to
    itself.
    """
    coins = world.owned_coins(world.random.random() < 0.3)
    if not coins:
        return pay(world)
    inputs = world.random.sample(coins, min(len(coins), world.random.randrange(1, 5)))
    total = sum(coin.value for _, coin in inputs)
    tx = spend_of(world, inputs, total, "spend")
    return tx


def spend_of(world, inputs, total, what):
    """Spends `inputs` whole, with a little help from the purse for the fee."""
    helper = world.random.choice(world.purse_coins(1_000_000)[:20] or [None])
    if helper:
        inputs = [*inputs, helper]
    to = world.random.choice(("others", "strangers", "itself", "purse"))
    script = {
        "others": world.payee().script,
        "strangers": world.stranger(),
        "itself": inputs[0][1].script,
        "purse": None,
    }[to]
    part = total - world.random.choice((0, 0, total // 3))
    tx = world.pay(inputs, [(part, script)] if script and part >= 600 else [])
    return tx if tx and world.send(tx, f"{what} to {to}") else None


def chain(world):
    """A payment and a line of descendants, each spending from the one before."""
    tx = from_purse(world, outputs_for(world, world.random.randrange(1, 4)), "chain")
    for _ in range(world.random.randrange(2, 8)):
        if tx is None:
            return
        world.ledger.refresh()
        own = [
            (o, c)
            for o, c in world.ledger.unspent().items()
            if o[0] == tx.txid and c.script in world.keys.by_script
        ]
        if not own:
            return
        inputs = world.random.sample(own, min(len(own), world.random.randrange(1, 3)))
        tx = spend_of(world, inputs, sum(coin.value for _, coin in inputs), "chain")


def replace(world):
    """By one that pays otherwise, or strangers only; what is replaced may have descendants."""
    target = choose_replaced(world)
    if target is None:
        return pay(world)
    for _ in range(world.random.choice((1, 1, 1, 3))):
        tx = replacement_of(world, target)
        if tx is None or not world.send(tx, f"replace {target.txid[:12]}"):
            return None
        world.ledger.refresh()
        target = tx


def choose_replaced(world):
    pool = list(world.ledger.mempool.values())
    scripts = {address.script for address in world.watched}
    touching = [tx for tx in pool if any(script in scripts for _, script in tx.outputs)]
    parents = [
        tx for tx in pool if any(outpoint[0] == tx.txid for outpoint in world.ledger.spender)
    ]
    for choice in world.random.sample((touching, parents, pool), 3):
        if choice:
            return world.random.choice(choice)
    return None


def replacement_of(world, target):
    """Spends one or more of the same outputs, now and then of two transactions, for more than all
    that it replaces paid.
    """
    ledger = world.ledger
    family = {txid: ledger.mempool[txid] for txid in ledger.with_descendants(target.txid)}
    same = world.random.sample(target.inputs, world.random.randrange(1, len(target.inputs) + 1))
    other = world.random.choice(list(ledger.mempool.values()))
    if (
        world.random.random() < 0.3
        and other.txid not in family
        and not any(parent in family for parent, _ in other.inputs)
    ):
        same += [outpoint for outpoint in other.inputs[:1] if outpoint not in same]
        family.update((txid, ledger.mempool[txid]) for txid in ledger.with_descendants(other.txid))
    # An output of what it replaces cannot be spent by it.
    same = [outpoint for outpoint in same if outpoint[0] not in family]
    if not same:
        return None
    family = list(family.values())
    paid = sum(ledger.fee(tx) for tx in family)
    inputs = [(outpoint, ledger.coin(outpoint)) for outpoint in same]
    gone = {tx.txid for tx in family}
    extra = [
        item
        for item in world.purse_coins(5_000_000, confirmed_only=True)
        if item[0][0] not in gone and item[0] not in same
    ]
    if extra:
        inputs.append(world.random.choice(extra[:20]))
    style = world.random.choice(("strangers", "strangers", "otherwise", "alike"))
    outputs = [(world.amount(), world.stranger())]
    if style == "otherwise":
        outputs = outputs_for(world, world.random.randrange(1, 3))
    elif style == "alike":
        outputs = [(value, script) for value, script in target.outputs if value < 60_000_000]
    dearest = max(ledger.fee(tx) * 2 // tx.weight for tx in family) + 1
    size = 60 + 180 * len(inputs) + 45 * (len(outputs) + 1)
    return world.pay(inputs, outputs, rate=max(2, dearest), least_fee=paid + 3 * size)


def resend(world):
    """Transactions that were replaced, evicted or left behind in a stale block come back as they
    were.
    """
    former = world.ledger.former(world.ledger.unspent())
    if not former:
        return replace(world)
    for tx in world.random.sample(former, min(len(former), world.random.randrange(1, 5))):
        world.send(tx, "resend")
    return None


def evict(world):
    """The node has room for little, and big transactions that pay more push the others out."""
    world.restart_node("-maxmempool=5")
    world.ledger.refresh()
    script = world.stranger()
    for outpoint, coin in world.purse_coins(30_000_000, confirmed_only=True)[:46]:
        outputs = [(700, script)] * 2500
        tx = world.pay([(outpoint, coin)], outputs, rate=world.random.choice((1, 2, 4, 8, 12)))
        if tx:
            world.send(tx, "big")
    world.restart_node("-persistmempool=0")


def expire(world):
    """The clock moves on by three weeks and back: all that is in the mempool expires with the next
    transaction.
    """
    world.node.rpc("setmocktime", int(time.time()) + 21 * 86_400)
    # It spends confirmed coins: those of an expiring parent would be gone.
    coins = world.purse_coins(30_000_000, confirmed_only=True)
    if coins:
        tx = world.pay([world.random.choice(coins)], [(world.amount(), world.payee().script)])
        if tx:
            world.send(tx, "expire all by")
    world.node.rpc("setmocktime", 0)
