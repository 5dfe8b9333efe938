// Preloaded by every npm script. Plank runs its TypeScript as it is, which wants Node 24.12 or newer; `npm ci` brings one
// (the development dependency `node`), and npm puts it first on PATH. Where it is missing, say so in one line.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 24 || (major === 24 && minor < 12)) {
  process.stderr.write(
    `Plank needs Node 24.12 or newer and found ${process.versions.node}. Run "npm ci" in this folder (it brings one), then start it by "npm run …" or "npm start".\n`,
  );
  process.exit(1);
}
