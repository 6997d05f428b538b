import time

import socketio

# Create SocketIO client
sio = socketio.Client()


@sio.event
def connect():
    print("Connected to SPV server")
    # Subscribe to address
    sio.emit("subscribe_address", {"address": "n43gfthwVPBopwaTMjmpMAT4Nqzf95NKcy"})


@sio.event
def balance_change(data):
    print(f"Balance changed for {data['address']}:")
    print(f"  Old: {data['old_balance_btc']} BTC")
    print(f"  New: {data['new_balance_btc']} BTC")


@sio.event
def new_transactions(data):
    print(f"New transactions for {data['address']}:")
    print(f"  Count: {data['count']}")


# Connect to server
sio.connect("http://localhost:5005")

# Keep connection alive
try:
    while True:
        time.sleep(1)
except KeyboardInterrupt:
    sio.disconnect()
