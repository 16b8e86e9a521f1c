'use strict';

// Data from the node becomes text nodes only: a command's name may contain markup.

const MAX_FLOWS = 1000; // kept
const MAX_ROWS = 200; // shown
const SILENCE = 30_000; // without any event: the connection is broken
const VERDICTS = ['CAPTURED', 'PASSED', 'REFUSED'];
const STATES = ['failed', 'pending', 'captured', 'skipped'];

const $ = id => document.getElementById(id);

/** An element with attributes (functions are listeners) and children (text or elements). */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') made.addEventListener(key, value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children.filter(child => child !== undefined && child !== ''));
  return made;
}

/** A row of cells: [label, content, class]. On a narrow screen the table's head is hidden: numbers get their
    label, and roles are explicit, because rows are no longer displayed as a table. */
const row = (cells, attributes = {}) => element('tr', { role: 'row', ...attributes },
  ...cells.map(([label, content, kind]) => element('td',
    { role: 'cell', 'data-label': label, class: content === '' ? `${kind ?? ''} empty-cell` : kind },
    element('span', {}, ...[content].flat()))));

const rendered = new Map();

/** Builds a part of the page again only if its key has changed, so that a selection or the focus stays. */
function renderIfChanged(part, key, build) {
  const text = JSON.stringify(key);
  if (rendered.get(part) === text) return;
  rendered.set(part, text);
  build();
}

const badge = (text, kind) => element('span', { class: `badge ${kind}` }, text);
const plural = (count, one) => `${count.toLocaleString('en')} ${one}${count === 1 ? '' : 's'}`;

// The node

let node; // { agent, states, pods } of the last event
let view = { name: 'pods' };
let stateFilter = '';
let previous = new Map(); // sums of connections by pod, at the last event

const nameOf = pod => pod.pod ? `${pod.pod.namespace}/${pod.pod.name}` : pod.netns;

/** All pods, captured or not: { name, state, reason, event, status }. */
function allPods() {
  const captured = new Map(node.pods.map(pod => [nameOf(pod), pod]));
  const pods = node.states.map(({ namespace, name, state, reason, last_event }) => {
    const full = `${namespace}/${name}`;
    const status = captured.get(full);
    captured.delete(full);
    return { name: full, state, reason, event: last_event, status };
  });
  for (const [name, status] of captured) {
    const reason = status.pod ? 'captured earlier; the agent has not received its object yet'
      : 'attached by a command';
    pods.push({ name, state: 'captured', reason, status });
  }
  return pods.sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
}

/** Pods with a problem come first. */
const rank = ({ state, status }) => status?.warnings.length ? -1 : STATES.indexOf(state);

const sum = (status, verdict) => (status.connections ?? [])
  .filter(one => one.verdict === verdict).reduce((all, one) => all + one.count, 0);

function onNode(event) {
  const next = JSON.parse(event.data);
  if (node) {
    previous = new Map(node.pods.map(pod => [nameOf(pod), pod]));
  }
  node = next;
  const { agent } = node;
  $('node').textContent = `node ${agent.node}`;
  $('version').textContent = `version ${agent.version}`;
  $('health').hidden = false;
  $('health').textContent = agent.ready ? 'agent ready' : 'agent not ready';
  $('health').className = `badge ${agent.ready ? 'captured' : 'refused'}`;
  setProblems('status', []);
  setProblems('agent', agent.problems.map(text => ['The agent is not ready',
    `${text}. Captured pods stay captured. If this lasts, the log of the agent says more.`]));
  render();
}

const problems = { agent: [], status: [], flows: [] };

/** Shows the problems of one kind, each a title and a text, in place of the earlier ones. */
function setProblems(kind, found) {
  problems[kind] = found;
  const all = Object.values(problems).flat();
  renderIfChanged('problems', all, () => {
    $('problems').hidden = all.length === 0;
    $('problems').replaceChildren(...all.map(([title, text]) =>
      element('p', { class: 'notice error' }, element('strong', {}, `${title}: `), text)));
  });
}

// Settings in words

const ports = list => list.map(({ first, last }) => first === last ? first : `${first}–${last}`).join(', ');
const list = (what, items) => items.length ? what + items.join(', ') : '';

function inboundWords(settings) {
  const { inbound_ports: selected, excluded_interfaces: interfaces, mode } = settings;
  let text = selected === 'none' ? 'nothing' : selected === 'all' ? 'all ports' : `ports ${ports(selected.listed) || '(none)'}`;
  if (selected === 'all' && settings.inbound_ports_exclude.length) text += ` except ${ports(settings.inbound_ports_exclude)}`;
  return text + list(', not through ', interfaces) + (mode === 'tproxy' ? ', by TPROXY' : '');
}

function outboundWords(settings) {
  const prefixes = settings.outbound_prefixes;
  const parts = [prefixes === 'all' ? 'all destinations' : prefixes.listed.length ? prefixes.listed.join(', ') : 'no destination'];
  if (settings.outbound_ports.length) parts.push(`ports ${ports(settings.outbound_ports)} of all destinations`);
  const except = [...settings.outbound_prefixes_exclude];
  if (settings.outbound_ports_exclude.length) except.push(`ports ${ports(settings.outbound_ports_exclude)}`);
  if (settings.excluded_interfaces.length) except.push(`through ${settings.excluded_interfaces.join(', ')}`);
  return parts.join(', and ') + list(', except ', except);
}

function ownerWords({ owner_groups: groups }) {
  if (groups.all_but) return groups.all_but.length ? `all except groups ${groups.all_but.join(', ')}` : 'all except the proxy';
  return groups.only.length ? `only groups ${groups.only.join(', ')}` : 'none';
}

function dnsWords({ dns }) {
  if (dns === 'off') return 'not captured';
  return dns === 'all' ? 'all queries over UDP and TCP' : `queries to ${dns.servers.join(', ')}`;
}

const listening = count => count > 0 ? `yes (${plural(count, 'socket')})` : 'no: captured connections are refused';

// Pods

function podLink(pod) {
  return element('a', { href: `#/pod/${encodeURIComponent(pod.name)}` }, pod.name);
}

function podRow(pod) {
  const { status } = pod;
  const why = [pod.reason, ...(status?.warnings ?? []).map(text => element('span', { class: 'warning' }, `Warning: ${text}`))];
  const proxy = status ? badge(...(status.outbound_listeners && status.inbound_listeners ? ['yes', 'captured']
    : status.outbound_listeners || status.inbound_listeners ? ['partly', 'passed'] : ['no', 'refused'])) : '';
  const count = verdict => status ? sum(status, verdict).toLocaleString('en') : '';
  return row([
    ['Pod', podLink(pod), 'strong'],
    ['State', badge(pod.state, pod.state)],
    ['Why', why, 'line'],
    ['Proxy listens', proxy, 'labelled'],
    ['Captured', count('CAPTURED'), 'number'],
    ['Passed', count('PASSED'), 'number'],
    ['Refused', count('REFUSED'), 'number'],
  ]);
}

function renderPods() {
  const all = allPods();
  renderIfChanged('pods', [all, stateFilter, $('pod-search').value], () => buildPods(all));
}

function buildPods(all) {
  const words = $('pod-search').value.trim().toLowerCase();
  const shown = all.filter(pod => (!stateFilter || pod.state === stateFilter)
    && `${pod.name} ${pod.reason}`.toLowerCase().includes(words));
  const buttons = ['', ...STATES].map(state => {
    const count = state ? all.filter(pod => pod.state === state).length : all.length;
    return element('button', {
      type: 'button', 'aria-pressed': String(state === stateFilter), 'data-state': state, class: state,
      click: () => { stateFilter = state; renderPods(); focusState(state); },
    }, `${state || 'all'} ${count}`);
  });
  const focused = document.activeElement?.dataset?.state;
  $('pod-states').replaceChildren($('pod-states').firstElementChild, ...buttons);
  if (focused !== undefined) focusState(focused);
  const link = document.activeElement?.closest?.('#pod-rows') ? document.activeElement.hash : undefined;
  $('pod-rows').replaceChildren(...shown.map(podRow));
  if (link) [...$('pod-rows').querySelectorAll('a')].find(one => one.hash === link)?.focus();
  $('pods-empty').hidden = shown.length > 0;
  $('pods-empty').textContent = all.length ? 'No pod matches the filter.' : 'The agent knows no pod of this node.';
}

const focusState = state => document.querySelector(`#pod-states [data-state="${state}"]`)?.focus();

// One pod

function definitions(entries) {
  return element('dl', {}, ...entries.filter(([, value]) => value !== undefined && value !== '')
    .flatMap(([term, value]) => [element('dt', {}, term), element('dd', {}, ...[value].flat())]));
}

function counterTable(pod) {
  const counters = [...(pod.status.connections ?? [])].sort((a, b) => b.count - a.count);
  if (!counters.length) return element('p', { class: 'empty' }, 'No connection since the pod was attached.');
  const earlier = previous.get(pod.name)?.connections ?? [];
  const head = ['Verdict', 'Direction', 'Reason', 'Connections', 'Since the last update'].map((title, index) =>
    element('th', { role: 'columnheader', scope: 'col', class: index > 2 ? 'number' : undefined }, title));
  const rows = counters.map(one => {
    const before = earlier.find(other => other.reason === one.reason && other.direction === one.direction && other.verdict === one.verdict);
    const more = one.count - (before?.count ?? 0);
    return row([
      ['Verdict', badge(one.verdict, one.verdict.toLowerCase())],
      ['Direction', one.direction],
      ['Reason', one.reason, 'line'],
      ['Connections', one.count.toLocaleString('en'), 'number'],
      ['New:', previous.has(pod.name) && more > 0 ? `+${more.toLocaleString('en')}` : '', 'number'],
    ]);
  });
  return element('table', { class: 'cards', role: 'table' },
    element('thead', { role: 'rowgroup' }, element('tr', { role: 'row' }, ...head)),
    element('tbody', { role: 'rowgroup' }, ...rows));
}

function renderPod() {
  const pod = allPods().find(one => one.name === view.pod);
  renderIfChanged('pod', [view.pod, pod, previous.get(view.pod)?.connections], () => buildPod(pod));
}

function buildPod(pod) {
  $('pod-name').textContent = view.pod;
  $('pod-captured').hidden = !pod?.status?.pod;
  if (!pod) {
    $('pod-status').replaceChildren(element('p', { class: 'notice' }, 'The agent knows no pod of this name: the pod was deleted, or runs on another node.'));
    return;
  }
  const { status } = pod;
  const parts = [];
  for (const text of status?.warnings ?? []) parts.push(element('p', { class: 'notice error' }, element('strong', {}, 'Warning: '), text));
  if (status?.network_changed) {
    parts.push(element('p', { class: 'notice' }, 'The interfaces, addresses or routes of the pod have changed since the attach: the agent applies them soon.'));
  }
  const general = [
    ['State', badge(pod.state, pod.state)],
    ['Why', pod.reason],
    ['Last Event', pod.event && `${pod.event.reason}: ${pod.event.note}`],
  ];
  if (!status) {
    parts.push(definitions(general));
    $('pod-status').replaceChildren(...parts);
    return;
  }
  const { settings } = status;
  general.push(
    ['Attached', status.attached_at && new Date(status.attached_at).toLocaleString()],
    ['Proxy', `UID ${settings.proxy_uids.join(', ')}, GID ${settings.proxy_gids.join(', ')}`],
    [`Listens on ${settings.outbound_port} (outbound)`, listening(status.outbound_listeners)],
    [`Listens on ${settings.inbound_port} (inbound)`, listening(status.inbound_listeners)],
    ['Evicted stand-ins', status.evicted_stand_ins ? String(status.evicted_stand_ins) : ''],
    ['Network namespace', status.netns],
  );
  const policy = [
    ['Outbound', outboundWords(settings)],
    ['Of processes', ownerWords(settings)],
    ['Inbound', inboundWords(settings)],
    ['DNS', dnsWords(settings)],
    ['IPv6', status.ipv6 ? 'captured' : 'not captured'],
    ['Interfaces that count as outbound', settings.rerouted_interfaces.join(', ')],
  ];
  parts.push(element('div', { class: 'columns' },
    element('section', { 'aria-label': 'Status' }, element('h2', {}, 'Status'), definitions(general)),
    element('section', { 'aria-label': 'What is captured' }, element('h2', {}, 'What is captured'), definitions(policy))));
  parts.push(element('section', { 'aria-label': 'Connections' }, element('h2', {}, 'Connections since the attach'), counterTable(pod),
    element('p', {}, element('a', { href: `#/flows/${encodeURIComponent(pod.name)}` }, 'Live flows of this pod'))));
  const focused = $('pod-status').contains(document.activeElement) ? document.activeElement.hash : undefined;
  $('pod-status').replaceChildren(...parts);
  if (focused) $('pod-status').querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

const ofPod = path => `v1/pods/${view.pod.split('/').map(encodeURIComponent).join('/')}/${path}`;

async function request(path) {
  const response = await fetch(path);
  const text = await response.text();
  if (!response.ok) throw new Error(text.trim());
  return text;
}

async function showRules() {
  if (!$('rules').open) return;
  $('rules-text').textContent = await request(ofPod('rules')).catch(error => String(error.message));
}

async function explain(event) {
  event.preventDefault();
  const query = new URLSearchParams({ to: $('explain-to').value.trim(), protocol: $('explain-protocol').value });
  if ($('explain-direction').value === 'inbound') query.set('inbound', 'true');
  else if ($('explain-uid').value.trim()) query.set('from_uid', $('explain-uid').value.trim());
  let shown;
  try {
    shown = explanation(JSON.parse(await request(ofPod(`explain?${query}`))));
  } catch (error) {
    shown = element('p', { class: 'notice error' }, error.message);
  }
  $('explained').replaceChildren(shown);
}

const ruleText = ({ table, chain, position, specification }) =>
  `-t ${table} ${position ? `-I ${chain} ${position}` : `-A ${chain}`} ${specification}`;

function explanation({ outcome, reason, rule, interface: device, source, note }) {
  const [verdict, words] = outcome === 'passed' ? ['PASSED', 'the connection goes to its destination']
    : outcome === 'unroutable' || outcome === 'refused' ? ['REFUSED', 'the connection fails']
    : ['CAPTURED', `the connection goes to the proxy's port ${outcome.captured.port}`];
  return definitions([
    ['Verdict', [badge(verdict, verdict.toLowerCase()), ` ${words}`]],
    ['Why', reason],
    ['iptables', rule ? element('code', {}, ruleText(rule)) : 'no rule matches'],
    ['Interface', device ?? ''],
    ['Source address', source ?? ''],
    ['Note', note ?? ''],
  ]);
}

// Flows

let flows = []; // the newest first
let unseen = 0; // while paused
let lost = 0;
let omitted = 0;
let paused = false;

const podOf = ({ pod }) => pod.name ? `${pod.namespace}/${pod.name}` : pod.netns || `netns cookie ${pod.netns_cookie}`;
const endpoint = ({ ip, port }) => port === undefined ? ip : ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;

function clock(time) {
  const at = new Date(time);
  const two = number => String(number).padStart(2, '0');
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}

function flowFilter() {
  const value = id => $(id).value.trim().toLowerCase();
  const [pod, verdict, reason, address, port] = ['flow-pod', 'flow-verdict', 'flow-reason', 'flow-address', 'flow-port'].map(value);
  return flow => podOf(flow).toLowerCase().includes(pod)
    && (!verdict || flow.verdict.toLowerCase() === verdict)
    && (!reason || flow.reason === reason)
    && (!address || flow.source.ip.includes(address) || flow.destination.ip.includes(address))
    && (!port || String(flow.source.port) === port || String(flow.destination.port) === port);
}

function flowRow(flow, isNew) {
  const { process, proxy_port: proxy } = flow;
  const owner = process && (process.uid === undefined ? 'no owner' : `uid ${process.uid}, gid ${process.gid}`);
  return row([
    ['Time', element('time', { datetime: flow.time, title: flow.time }, clock(flow.time)), 'time'],
    ['Pod', flow.pod.name ? podLink({ name: podOf(flow) }) : podOf(flow), 'strong'],
    ['Verdict', badge(flow.verdict, flow.verdict.toLowerCase())],
    ['Connection', [`${endpoint(flow.source)} → ${endpoint(flow.destination)}`,
      element('span', { class: 'note' }, `${flow.direction} ${flow.protocol}${proxy ? `, to the proxy's port ${proxy}` : ''}`)], 'line'],
    ['Why', [flow.explanation, element('span', { class: 'note' }, flow.reason)], 'line'],
    ['Process', process ? [`${process.command} ${process.pid}`, element('span', { class: 'note' }, owner)] : '', 'line'],
  ], { class: isNew ? 'new' : undefined });
}

function onFlows(event) {
  const messages = JSON.parse(event.data);
  const arrived = [];
  for (const message of messages) {
    if (message.flow) arrived.unshift(message.flow);
    else if (message.lost) lost += message.lost;
    else if (message.omitted) omitted += message.omitted;
    else if (message.error) setProblems('flows', [['Flows cannot be read, retrying', message.error]]);
  }
  if (event.type === 'history') flows = [];
  if (arrived.length) setProblems('flows', []);
  flows = arrived.concat(flows).slice(0, MAX_FLOWS);
  for (const { reason } of arrived) addReason(reason);
  if (paused && event.type !== 'history') unseen += arrived.length;
  else if (event.type === 'history') renderFlows();
  else addRows(arrived.filter(flowFilter()).slice(0, MAX_ROWS));
  countFlows();
}

function addReason(reason) {
  const options = [...$('flow-reason').options];
  if (options.some(option => option.value === reason)) return;
  const after = options.slice(1).find(option => option.value > reason);
  $('flow-reason').insertBefore(element('option', { value: reason }, reason), after ?? null);
}

function addRows(shown) {
  const rows = $('flow-rows');
  rows.prepend(...shown.map(flow => flowRow(flow, true)));
  while (rows.childElementCount > MAX_ROWS) rows.lastElementChild.remove();
}

function renderFlows() {
  const shown = flows.filter(flowFilter()).slice(0, MAX_ROWS);
  $('flow-rows').replaceChildren(...shown.map(flow => flowRow(flow, false)));
  countFlows();
}

function countFlows() {
  const shown = $('flow-rows').childElementCount;
  const parts = [`${shown} of ${plural(flows.length, 'flow')} shown`];
  if (shown === MAX_ROWS) parts.push(`at most ${MAX_ROWS} rows`);
  if (paused) parts.push(`paused, ${unseen.toLocaleString('en')} new`);
  if (lost) parts.push(`${lost.toLocaleString('en')} lost by the node`);
  if (omitted) parts.push(`${omitted.toLocaleString('en')} not sent to this page: too many at a time`);
  $('flow-count').textContent = parts.join('; ');
  $('flows-empty').hidden = shown > 0;
  $('flows-empty').textContent = flows.length ? 'No flow matches the filters.'
    : 'No flow yet. Each connection of a captured pod appears here when it is made.';
}

function setPaused(value) {
  paused = value;
  unseen = 0;
  $('flow-pause').setAttribute('aria-pressed', String(paused));
  $('flow-pause').textContent = paused ? 'Resume' : 'Pause';
  if (paused) countFlows();
  else renderFlows();
}

// Events: only while the page is visible; flows only in their view, as observing costs the node

let source;
let followsFlows = false;
let lastEvent = 0;

function follow() {
  const wanted = document.visibilityState === 'visible';
  const withFlows = view.name === 'flows';
  if (source && wanted && followsFlows === withFlows && source.readyState !== EventSource.CLOSED) return;
  source?.close();
  source = undefined;
  if (!wanted) return;
  followsFlows = withFlows;
  if (!withFlows) setProblems('flows', []);
  lastEvent = Date.now();
  source = new EventSource(`v1/events?flows=${withFlows}`);
  const on = (kind, handle) => source.addEventListener(kind, event => {
    lastEvent = Date.now();
    connected('live', 'Live');
    handle(event);
  });
  on('node', onNode);
  on('problem', event => setProblems('status', [['The status of pods cannot be read, retrying', event.data]]));
  on('history', onFlows);
  on('flows', onFlows);
  on('heartbeat', () => {});
  source.onerror = () => connected('lost', 'Disconnected');
}

function connected(kind, text) {
  if ($('connection').className === kind) return;
  $('connection').className = kind;
  $('connection').textContent = text;
}

setInterval(() => {
  if (!source) return;
  if (Date.now() - lastEvent > SILENCE || source.readyState === EventSource.CLOSED) {
    connected('lost', 'Disconnected');
    source.close();
    follow();
  }
}, 3000);

// Views and keys

function render() {
  if (!node) return;
  if (view.name === 'pods') renderPods();
  else if (view.name === 'pod') renderPod();
}

function navigate() {
  const [, name, argument] = location.hash.split('/');
  const pod = argument && decodeURIComponent(argument);
  view = name === 'pod' && pod ? { name, pod } : name === 'flows' ? { name } : { name: 'pods' };
  for (const one of ['pods', 'flows', 'pod']) $(one).hidden = one !== view.name;
  for (const one of ['pods', 'flows']) {
    if (one === (view.name === 'pod' ? 'pods' : view.name)) $(`tab-${one}`).setAttribute('aria-current', 'page');
    else $(`tab-${one}`).removeAttribute('aria-current');
  }
  document.title = `Interceptor: ${view.pod ?? view.name}`;
  if (view.name === 'pod') {
    $('explained').replaceChildren();
    $('rules').open = false;
  }
  if (view.name === 'flows') {
    if (pod) $('flow-pod').value = pod;
    renderFlows();
  }
  scrollTo(0, 0);
  follow();
  render();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest?.('input, select, textarea');
  if (event.key === 'Escape') {
    const isClearable = field?.value && (field.matches('input') || field.options[0].value === '');
    if (isClearable) {
      field.value = '';
      field.dispatchEvent(new Event('input', { bubbles: true }));
    } else if (field) field.blur();
    else if (view.name === 'pod') location.hash = '#/pods';
    return;
  }
  if (field) return;
  const filter = { pods: 'pod-search', flows: 'flow-pod', pod: 'explain-to' }[view.name];
  if (event.key === '/') {
    event.preventDefault();
    $(filter).focus();
  } else if (event.key === 'p') location.hash = '#/pods';
  else if (event.key === 'f') location.hash = '#/flows';
}

for (const form of document.forms) form.addEventListener('submit', event => event.preventDefault());
$('pods').querySelector('form').addEventListener('input', () => node && renderPods());
$('flows').querySelector('form').addEventListener('input', renderFlows);
$('flow-pause').addEventListener('click', () => setPaused(!paused));
$('flow-clear').addEventListener('click', () => {
  flows = [];
  lost = omitted = 0;
  renderFlows();
});
$('explain').addEventListener('submit', explain);
$('explain-direction').addEventListener('change', event => { $('explain-owner').hidden = event.target.value === 'inbound'; });
$('rules').addEventListener('toggle', showRules);
$('rules-copy').addEventListener('click', () => navigator.clipboard.writeText($('rules-text').textContent));
addEventListener('hashchange', navigate);
addEventListener('keydown', onKey);
document.addEventListener('visibilitychange', follow);
navigate();
