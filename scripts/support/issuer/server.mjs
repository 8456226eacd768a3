// A certified OpenID provider (oidc-provider) on loopback, for the tests marked `issuer`.
//
//   node server.mjs MODULES [PORT]
//
// MODULES is the directory that has node_modules; without PORT the system chooses one. A second
// port, for the tests alone, rotates keys and tells how often each path was asked for:
//   POST /publish | /sign | /withdraw    a new ES256 key is shown | signs | is the only one left
//   GET /counts                          {"/jwks": 3, "/token": 12, ...}
// What it hands out is decided by the resource that a client asks for, see RESOURCES.

import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, port = '0'] = process.argv.slice(2);
const find = createRequire(resolve(modules, 'package.json'));
const { default: Provider } = await import(pathToFileURL(find.resolve('oidc-provider')));

const SECRET = 'a-secret-of-the-tests-0123456789';
const RESOURCES = {
  'urn:models:rs256': { audience: 'models', alg: 'RS256' },
  'urn:models:es256': { audience: 'models', alg: 'ES256' },
  'urn:models:eddsa': { audience: 'models', alg: 'EdDSA' },
  'urn:elsewhere': { audience: 'elsewhere', alg: 'ES256' },
  'urn:opaque': { audience: 'models', opaque: true },
};
const GROUPS = { 'agent-7': ['cleared'] };

let made = 0;
function newKey(alg) {
  const pairs = {
    RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
    ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    EdDSA: () => generateKeyPairSync('ed25519'),
  };
  const jwk = pairs[alg]().privateKey.export({ format: 'jwk' });
  made += 1;
  return { ...jwk, kid: `${alg}-${process.pid}-${made}`, alg, use: 'sig' };
}

const others = [newKey('RS256'), newKey('EdDSA')];
let rotated = [newKey('ES256')]; // the first one signs
const steps = {
  publish: () => [...rotated, newKey('ES256')],
  sign: () => (rotated.length > 1 ? rotated.toReversed() : [newKey('ES256'), ...rotated]),
  withdraw: () => rotated.slice(0, 1),
};

function client(id, more = {}) {
  return {
    client_id: id,
    client_secret: SECRET,
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    ...more,
  };
}

function build(issuer) {
  const provider = new Provider(issuer, {
    jwks: { keys: [...rotated, ...others] },
    clients: [
      client('agent-7'),
      client('agent-8'),
      client('stranger'),
      client('gate'),
      // A client that is called as the gate's audience is: its ID tokens have that audience.
      client('models', {
        grant_types: ['authorization_code'],
        response_types: ['code'],
        redirect_uris: ['http://127.0.0.1/signed-in'],
        id_token_signed_response_alg: 'ES256',
      }),
    ],
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA'] },
    ttl: { ClientCredentials: 600 },
    cookies: { keys: [SECRET] },
    findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    extraTokenClaims: (_, token) => ({ groups: GROUPS[token.clientId] ?? [] }),
    formats: { customizers: { jwt: keep } },
    features: {
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true, allowedPolicy: () => true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:models:es256',
        useGrantedResource: () => true,
        getResourceServerInfo(_, name) {
          const { audience, alg, opaque } = RESOURCES[name];
          return {
            audience,
            scope: 'inference',
            accessTokenTTL: 600,
            accessTokenFormat: opaque ? 'opaque' : 'jwt',
            jwt: opaque ? undefined : { sign: { alg } },
          };
        },
      },
    },
  });
  provider.use(byId);
  provider.on('server_error', (_, error) => console.error(error));
  return provider.callback();
}

// oidc-provider introspects and revokes only the tokens that it stores, and JWTs it does not
// store. So for each JWT of a client an opaque token with the same id is stored, and is what the
// two endpoints are asked about.
async function keep(ctx, token) {
  const { ClientCredentials } = ctx.oidc.provider;
  if (token.kind !== 'ClientCredentials') return;
  const twin = new ClientCredentials({ client: token.client, scope: token.scope, jti: token.jti });
  twin.format = 'opaque';
  twin.aud = token.aud;
  twin.jkt = token.jkt;
  await twin.save();
}

async function byId(ctx, next) {
  if (ctx.method === 'POST' && ['/token/introspection', '/token/revocation'].includes(ctx.path)) {
    const body = [];
    for await (const piece of ctx.req) body.push(piece);
    const asked = Object.fromEntries(new URLSearchParams(Buffer.concat(body).toString()));
    const [, payload] = (asked.token ?? '').split('.');
    if (payload) asked.token = JSON.parse(Buffer.from(payload, 'base64url')).jti;
    ctx.req.body = asked;
  }
  await next();
}

async function listen(server, at) {
  server.listen(Number(at), '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${server.address().port}`;
}

const counts = {};
let answer;
const server = createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://127.0.0.1');
  counts[pathname] = (counts[pathname] ?? 0) + 1;
  answer(request, response);
});
const control = createServer((request, response) => {
  const name = request.url.slice(1);
  if (request.method === 'POST' && Object.hasOwn(steps, name)) {
    rotated = steps[name]();
    answer = build(issuer);
  }
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify(name === 'counts' ? counts : rotated.map(({ kid }) => kid)));
});

const issuer = await listen(server, port);
answer = build(issuer);
console.log(`issuer at ${issuer}`);
console.log(`its keys are turned at ${await listen(control, 0)}`);
