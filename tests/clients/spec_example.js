// Connect to WebSocket server
const socket = io('http://localhost:5005');

// Handle connection
socket.on('connect', () => {
    console.log('Connected to SPV server');
});

// Subscribe to address updates
socket.emit('subscribe_address', { 
    address: 'n43gfthwVPBopwaTMjmpMAT4Nqzf95NKcy' 
});

// Listen for balance changes
socket.on('balance_change', (data) => {
    console.log(`Balance changed for ${data.address}:`);
    console.log(`  Old: ${data.old_balance_btc} BTC`);
    console.log(`  New: ${data.new_balance_btc} BTC`);
});

// Listen for new transactions
socket.on('new_transactions', (data) => {
    console.log(`New transactions for ${data.address}:`);
    console.log(`  Count: ${data.count}`);
    console.log(`  Transactions:`, data.transactions);
});
