#!/usr/bin/env node
// The backend of a shop that stores no cursor of its own: the daemon knows what it has done, and
// after any crash goes on from there.
//
//   npm install
//   node consumer.js http://127.0.0.1:5005 shop ADDRESS...
const { consume } = require("./satwatch.js");

async function main() {
    const [url, name, ...addresses] = process.argv.slice(2);
    if (!url || !name || addresses.length === 0) {
        console.error("usage: node consumer.js URL NAME ADDRESS...");
        process.exit(2);
    }
    for await (const event of consume(url, name, { addresses })) {
        // The work. What was not acknowledged comes again after a crash, so doing it twice must do
        // no harm: keep the cursor with the result.
        console.log(JSON.stringify(event));
    }
}

main().catch((error) => {
    console.error(error.message);
    process.exit(1);
});
