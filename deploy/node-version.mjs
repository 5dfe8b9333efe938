// Every npm script preloads this file. Node runs Plank's TypeScript directly, which needs Node 24.12 or newer. `npm ci`
// installs such a Node (the development dependency `node`), and npm puts it first on PATH. If that Node is missing,
// this file prints one line and exits.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 24 || (major === 24 && minor < 12)) {
  process.stderr.write(
    `Plank needs Node 24.12 or newer and found ${process.versions.node}. Run "npm ci" in this folder, which installs one, then use "npm run …" or "npm start".\n`,
  );
  process.exit(1);
}
