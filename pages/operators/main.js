// The operators' console. One gateway serves the console, which shows this gateway's reports of all gateways, listeners
// and clients. The console draws once in a frame.

import { oncePerFrame } from '../common/dom.js';
import { drawChannels, startChannels } from './channels.js';
import { drawCharts, startCharts } from './charts.js';
import { drawClients, startClients } from './clients.js';
import { startExplain } from './explain.js';
import { drawLog, startLog } from './log.js';
import { drawNodes, startNodes } from './nodes.js';
import { admitted } from './session.js';
import { drawStatus } from './status.js';
import { drawTables, startTail } from './tail.js';
import { followView } from './view.js';

await admitted();

let view = null;
let heardAt = Date.now();
const draw = oncePerFrame(() => {
  drawStatus(view, heardAt);
  if (!view) return;
  drawNodes(view);
  drawLog(view);
  drawCharts(view);
  drawChannels(view);
  drawClients(view);
  drawTables(view);
});

startCharts();
startExplain();
startNodes();
startLog();
startChannels();
startClients();
startTail();
followView((given) => {
  view = given;
  heardAt = Date.now();
  draw();
});
// The status says how long ago the gateway answered, so it is drawn again each second.
setInterval(draw, 1_000);
