// One call of a stock SDK for Node.js, with nothing set but where and who: retries are its own.
//
//   node sdks.mjs MODULES openai|anthropic whole|stream URL TOKEN PROMPT
//
// MODULES is the directory that has node_modules. Prints {"text": ..., "pieces": 1 if whole}.

import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, sdk, how, url, token, prompt] = process.argv.slice(2);
const find = createRequire(resolve(modules, 'package.json'));
const load = async (name) => (await import(pathToFileURL(find.resolve(name)))).default;
const messages = [{ role: 'user', content: prompt }];
const stream = how === 'stream';
const pieces = [];

if (sdk === 'openai') {
  const OpenAI = await load('openai');
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: token });
  const answer = await client.chat.completions.create({ model: 'stand-in', messages, stream });
  if (stream) for await (const chunk of answer) pieces.push(chunk.choices[0]?.delta.content ?? '');
  else pieces.push(answer.choices[0].message.content);
} else {
  const Anthropic = await load('@anthropic-ai/sdk');
  const client = new Anthropic({ baseURL: url, apiKey: token });
  const asked = { model: 'stand-in', max_tokens: 99, messages, stream };
  const answer = await client.messages.create(asked);
  if (stream) for await (const event of answer) pieces.push(event.delta?.text ?? '');
  else pieces.push(answer.content[0].text);
}
const told = pieces.filter((piece) => piece);
console.log(JSON.stringify({ text: told.join(''), pieces: told.length }));
