// Preloaded by every npm script. Node runs Plank's TypeScript directly, which needs Node 24.12 or newer. `npm ci` installs one
// (the development dependency `node`), and npm puts it first on PATH. If it is missing, this says so in one line.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 24 || (major === 24 && minor < 12)) {
  process.stderr.write(
    `Plank needs Node 24.12 or newer and found ${process.versions.node}. Run "npm ci" in this folder, which installs one, then use "npm run …" or "npm start".\n`,
  );
  process.exit(1);
}
