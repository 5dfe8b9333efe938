// The operators' console: live tables over Plank's own protocol, from the gateway that serves the page. Drawing happens once a
// frame, however much arrives.

import { oncePerFrame } from '../dom.js';
import { createPlank } from '../plank.js';
import { drawChannels, startChannels } from './channels.js';
import { drawCharts, startCharts } from './charts.js';
import { drawClients, startClients } from './clients.js';
import { startExplain } from './explain.js';
import { drawLog, startLog } from './log.js';
import { drawNodes, startNodes } from './nodes.js';
import { admitted, isOver } from './session.js';
import { drawStatus, startStatus } from './status.js';
import { drawTables, startTail } from './tail.js';

await admitted();

const plank = createPlank({ url: 'ops/ws' });
const draw = oncePerFrame(() => {
  drawStatus();
  drawNodes();
  drawLog();
  drawCharts();
  drawChannels();
  drawClients();
  drawTables();
});

startCharts();
startExplain();
startStatus(plank, draw);
startNodes(plank, draw);
startLog(plank, draw);
startChannels(plank, draw);
startClients(plank, draw);
startTail(plank, draw);
plank.onState(async ({ status }) => {
  // a session that is over looks like a gateway that does not answer
  if (status === 'waiting' && (await isOver())) location.reload();
});
