// Serves CouchDB's protocol to the tests: pouchdb-server's app, in a process that no request can end.
//
//   node wrapper.js INSTALLED [CONFIG [OPTIONS]]      INSTALLED holds node_modules, CONFIG is JSON such as
//                                                     {"admins": {"admin": "secret"}}, OPTIONS is JSON too:
//                                                     adapter (memory, or leveldb where that is installed), port (any)
//
// Prints `listening PORT` on stdout once it answers; every fault that would have ended pouchdb-server is one line
// `crash: METHOD PATH: message` on stderr. Writes into the current directory only, and lives as long as its stdin is open.
// Private: GET /_test/requests answers [[method, path], ...] since the last DELETE /_test/requests.
'use strict';

const { AsyncLocalStorage } = require('async_hooks');
const fs = require('fs');
const http = require('http');
const { createRequire } = require('module');
const path = require('path');

const installed = path.resolve(process.argv[2]);
const config = JSON.parse(process.argv[3] || '{}');
const { adapter = 'memory', port = 0 } = JSON.parse(process.argv[4] || '{}');

// Libraries as pouchdb-server itself would find them, so that they are the versions it was released with.
const server = require.resolve('pouchdb-server/package.json', { paths: [installed] });
const need = createRequire(server);

// Started first: pouchdb's libraries talk on stdout, which belongs to the one line with the port.
console.log = console.info = console.error;
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();

// ── faults ────────────────────────────────────────────────────────────────────────────────────────────────────────
const current = new AsyncLocalStorage(); // the exchange {request, response} that the running code serves
const open = new Set(); // exchanges without a whole answer
let requests = []; // [method, path] since the last reset

const name = ({ request }) => `${request.method} ${request.url}`;

function refuse({ response }, message) {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.writeHead(500, { 'Content-Type': 'application/json', Connection: 'close' });
  response.end(JSON.stringify({ error: 'crash', reason: `pouchdb-server would have ended here: ${message}` }) + '\n');
}

function survive(error) {
  const message = String((error && (error.message || error.reason)) || error).replace(/\s+/g, ' ');
  const guilty = current.getStore();
  if (guilty) {
    fs.writeSync(2, `crash: ${name(guilty)}: ${message}\n`);
    if (open.has(guilty)) refuse(guilty, message); // most faults come to light after the answer
  } else {
    // Nobody can tell whose it is: name all that may be meant, and cut them off as a real end would have.
    const seen = open.size ? [...open].map(name) : requests.slice(-5).map((words) => words.join(' '));
    fs.writeSync(2, `crash: ${seen.join(' | ') || '(no request)'}: ${message}\n`);
    open.forEach((exchange) => exchange.response.destroy());
  }
}

// ── the server ────────────────────────────────────────────────────────────────────────────────────────────────────
fs.mkdirSync('data', { recursive: true }); // LevelDB makes no folders above its own
fs.writeFileSync('config.json', JSON.stringify({ log: { file: 'log.txt', level: 'none' }, ...config }));

const PouchDB = need('pouchdb-core')
  .plugin(need('pouchdb-adapter-http'))
  .plugin(need('pouchdb-replication'))
  .plugin(need('pouchdb-mapreduce'))
  .plugin(need(`pouchdb-adapter-${adapter}`));
const app = need('express-pouchdb')({ configPath: 'config.json' });

// Now and then pouchdb has no result for a document that it did not write, throws over that, and answers no request
// for the database again. CouchDB says conflict.
const { createError, REV_CONFLICT } = need('pouchdb-errors');
const whole = (results) => results && Array.from(results, (each) => each || createError(REV_CONFLICT));
Object.defineProperty(PouchDB.prototype, '_bulkDocs', {
  set(write) {
    const value = (body, options, done) =>
      write.call(this, body, options, (error, results) => done(error, whole(results)));
    Object.defineProperty(this, '_bulkDocs', { value, writable: true, configurable: true });
  },
});

function answer(request, response) {
  if (request.url === '/_test/requests') {
    if (request.method === 'DELETE') requests = [];
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(requests));
    return;
  }
  const exchange = { request, response };
  requests.push([request.method, request.url]);
  open.add(exchange);
  response.on('close', () => open.delete(exchange));
  current.run(exchange, () => app(request, response));
}

app.setPouchDB(PouchDB.defaults({ prefix: path.resolve('data') + path.sep })).then(() => {
  const listener = http.createServer(answer);
  listener.keepAliveTimeout = 300000; // CouchDB keeps idle clients far longer than Node's 5 s
  listener.requestTimeout = 0; // a test's slow upload is no attack
  listener.listen(port, '127.0.0.1', () => {
    process.on('unhandledRejection', survive); // not before: a fault of the start ends the start
    process.on('uncaughtException', survive);
    fs.writeSync(1, `listening ${listener.address().port}\n`);
  });
});
