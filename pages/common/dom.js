// What the parts of both pages do with the document: finding and making elements, showing times and
// long texts, drawing once a frame.

export const byId = (id) => document.getElementById(id);

/** Attributes whose name begins with "on" are listeners. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Leaves an element alone that shows the text already, so that a selection in it stays. */
export function setText(shown, text) {
  if (shown.textContent !== text) shown.textContent = text;
}

/** Shows a problem, or hides its element where there is none. */
export function showProblem(shown, text) {
  setText(shown, text ?? '');
  shown.hidden = !text;
}

const clock = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
  hourCycle: 'h23',
});
const day = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' });

export const clockText = (date) => clock.format(date);

/** The time of day where `iso` is of today, else the date. */
export function timeText(iso) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return iso;
  return (date.toDateString() === new Date().toDateString() ? clock : day).format(date);
}

/** Nodes that show a text: all of it, or its beginning and a button that shows the rest. */
export function longText(text, limit) {
  // a button for a few characters more would take their place
  if (text.length <= limit * 1.2) return [text];
  const shown = element('span', {}, `${text.slice(0, limit)}…`);
  const label = `Show all ${text.length.toLocaleString('en')} characters`;
  const button = element('button', { type: 'button', class: 'more', 'aria-expanded': 'false' }, label);
  button.addEventListener('click', () => {
    const isOpen = button.getAttribute('aria-expanded') === 'true';
    button.setAttribute('aria-expanded', String(!isOpen));
    shown.textContent = isOpen ? `${text.slice(0, limit)}…` : text;
    button.textContent = isOpen ? label : 'Show less';
  });
  return [shown, ' ', button];
}

/** A function that runs `draw` in the next frame, however often it is called until then. */
export function oncePerFrame(draw) {
  let isPlanned = false;
  return () => {
    if (isPlanned) return;
    isPlanned = true;
    requestAnimationFrame(() => {
      isPlanned = false;
      draw();
    });
  };
}
