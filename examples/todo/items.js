// Elements that follow rows: an element for each row, in the order of the rows. An element is made again only if its
// row is another object. The SDK keeps the object of a row that has not changed.

export function keptItems(parent, make) {
  const drawn = new Map(); // key → { row, item }
  return (rows, keyOf) => {
    const keys = new Set(rows.map(keyOf));
    for (const [key, { item }] of drawn) {
      if (keys.has(key)) continue;
      item.remove();
      drawn.delete(key);
    }
    rows.forEach((row, i) => {
      const key = keyOf(row);
      const known = drawn.get(key);
      if (known?.row !== row) {
        const item = make(row);
        known?.item.replaceWith(item);
        drawn.set(key, { row, item });
      }
      const { item } = drawn.get(key);
      if (parent.children[i] !== item) parent.insertBefore(item, parent.children[i] ?? null);
    });
  };
}

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
