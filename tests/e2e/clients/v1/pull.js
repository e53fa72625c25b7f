// Pulls a v1 image with npm's docker-registry-client: node pull.js HOST/NAME TAG DIRECTORY [USER PASSWORD]
//
// Each layer and each image's JSON becomes a file of DIRECTORY. With PLAIN=1 over plain HTTP.
'use strict';
const fs = require('fs');
const { pipeline } = require('stream/promises');
const { createClientV1 } = require('docker-registry-client');

const [name, tag, directory, username, password] = process.argv.slice(2);
const scheme = process.env.PLAIN === '1' ? 'http://' : 'https://';
const client = createClientV1({ name: scheme + name, username, password });

function call(method, ...options) {
  return new Promise((resolve, reject) => {
    client[method](...options, (error, found) => (error ? reject(error) : resolve(found)));
  });
}

async function pull() {
  await call('ping');
  const listed = await call('listRepoImgs', {});
  const tags = await call('listRepoTags');
  const top = await call('getImgId', { tag });
  if (tags[tag] !== top || !listed.some((image) => image.id === top)) throw new Error(`${tag} is not listed: ${JSON.stringify(tags)}`);
  for (const imgId of await call('getImgAncestry', { imgId: top })) {
    const json = await call('getImgJson', { imgId });
    if (json.id !== imgId) throw new Error(`${imgId} says that it is ${json.id}`);
    await pipeline(await call('getImgLayerStream', { imgId }), fs.createWriteStream(`${directory}/${imgId}.layer`));
    console.log(imgId);
  }
  client.close();
}

pull().catch((error) => {
  console.error(`${error.name}: ${error.message}`);
  process.exit(1);
});
