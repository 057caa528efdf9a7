// Draws a dashboard's JSON from kept answers (collect.py) with Grafana's panels: TimeSeries, BigValue, BarGauge and
// PanelChrome of @grafana/ui. Timelines of states are this page's own: Grafana's are part of its server's code.
// What Grafana's server does, such as provisioning, variables and transformations, is not shown by this.
import {
  createTheme, dateTime, FieldType, getDisplayProcessor, getDisplayValueAlignmentFactors, reduceField, renderMarkdown, ThemeContext,
  toDataFrame, type DataFrame, type Field, type GrafanaTheme2,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';
import { createRoot } from 'react-dom/client';
import 'uplot/dist/uPlot.min.css';

declare const DATA: { board: any; answers: Record<string, any[]>; from: number; to: number; step: number };
const WIDTH = 1600, CELL = 38, GAP = 8, HEAD = 84;
const theme: GrafanaTheme2 = createTheme({ colors: { mode: 'dark' } });
const range = { from: dateTime(DATA.from * 1000), to: dateTime(DATA.to * 1000), raw: { from: 'now-5m', to: 'now' } };
const column = WIDTH / 24;

function frames(panel: any): DataFrame[] {
  const { defaults, overrides } = panel.fieldConfig ?? { defaults: {}, overrides: [] };
  let index = 0;
  return (panel.targets ?? []).flatMap((target: any) =>
    (DATA.answers[`${panel.id}${target.refId}`] ?? []).map((series: any) => {
      const legend = (target.legendFormat || '').replace(/{{\s*(\w+)\s*}}/g, (_: string, label: string) => series.metric[label] ?? '');
      const name = legend || panel.title;
      const at = new Map<number, number>(series.values.map(([time, value]: [number, string]) => [Math.round(time), Number(value)]));
      const times: number[] = [], values: (number | null)[] = [];
      for (let time = DATA.from; time <= DATA.to; time += DATA.step) {
        const value = at.get(Math.round(time));
        times.push(time * 1000);
        values.push(value === undefined || Number.isNaN(value) ? null : value);
      }
      const frame = toDataFrame({
        fields: [
          { name: 'Time', type: FieldType.time, values: times },
          { name, type: FieldType.number, values, config: { ...defaults, displayName: name } },
        ],
      });
      const field: Field = frame.fields[1];
      for (const override of overrides) {
        if (override.matcher.id === 'byName' && override.matcher.options === name) {
          for (const property of override.properties) (field.config as any)[property.id] = property.value;
        }
      }
      field.config.color ??= { mode: panel.type === 'timeseries' ? 'palette-classic' : 'thresholds' } as any;
      const known = values.filter((value) => value !== null) as number[];
      const min = Math.min(0, ...known), max = Math.max(...known);
      field.state = { seriesIndex: index++, displayName: name, range: { min, max, delta: max - min } };
      field.display = getDisplayProcessor({ field, theme, timeZone: 'utc' });
      frame.fields[0].display = getDisplayProcessor({ field: frame.fields[0], theme, timeZone: 'utc' });
      return frame;
    }),
  );
}

const last = (field: Field) => reduceField({ field, reducers: ['lastNotNull'] }).lastNotNull;

function Lines({ panel, width, height }: any) {
  const data = frames(panel);
  if (!data.length) return <Nothing />;
  return (
    <TimeSeries frames={data} timeRange={range as any} timeZone="utc" width={width} height={height} legend={panel.options.legend}
      structureRev={1}>
      {() => null as any}
    </TimeSeries>
  );
}

function Stat({ panel, width, height }: any) {
  const frame = frames(panel)[0];
  const field = frame?.fields[1];
  const display = field ? field.display!(last(field)) : { text: panel.fieldConfig.defaults.noValue ?? '-', numeric: NaN };
  return (
    <BigValue theme={theme} width={width} height={height} value={display as any} colorMode={panel.options.colorMode}
      graphMode={panel.options.graphMode} sparkline={field && { y: field, x: frame.fields[0] }} />
  );
}

function Bars({ panel, width, height }: any) {
  const data = frames(panel).sort((a, b) => last(b.fields[1]) - last(a.fields[1]));
  if (!data.length) return <Nothing />;
  const each = Math.min(60, height / data.length);
  const shown = data.map(({ fields: [, field] }) => ({ ...field.display!(last(field)), title: field.state!.displayName! }));
  const most = Math.max(...data.map((frame) => last(frame.fields[1])));
  return (
    <div>
      {data.map((frame, index) => {
        const field = frame.fields[1];
        field.config.max ??= most;
        return (
          <div key={index} style={{ height: each, paddingBottom: 4 }}>
            <BarGauge theme={theme} width={width} height={each - 4} field={field.config} display={field.display}
              value={shown[index]} orientation={'horizontal' as any}
              alignmentFactors={getDisplayValueAlignmentFactors(shown.map((display) => ({ display })) as any)}
              displayMode={panel.options.displayMode} namePlacement={panel.options.namePlacement} showUnfilled itemSpacing={4} />
          </div>
        );
      })}
    </div>
  );
}

function States({ panel, width, height }: any) {
  const data = frames(panel);
  if (!data.length) return <Nothing />;
  const options = panel.fieldConfig.defaults.mappings[0].options;
  const left = Math.min(230, 20 + 7 * Math.max(...data.map((frame) => frame.fields[1].state!.displayName!.length)));
  const row = Math.min(48, (height - 28) / data.length);
  const shown = new Set<string>();
  const rows = data.map((frame, index) => {
    const values = frame.fields[1].values;
    const spans: [number, number, any][] = [];
    values.forEach((value: any, at: number) => {
      const before = spans[spans.length - 1];
      if (before && before[2] === value) before[1] = at + 1;
      else spans.push([at, at + 1, value]);
    });
    return (
      <div key={index} style={{ display: 'flex', height: row, alignItems: 'center' }}>
        <div style={{ width: left, textAlign: 'right', paddingRight: 8, fontSize: 12, whiteSpace: 'nowrap', overflow: 'hidden' }}>
          {frame.fields[1].state!.displayName}
        </div>
        <div style={{ position: 'relative', width: width - left, height: row * 0.8 }}>
          {spans.filter(([, , value]) => value !== null).map(([from, to, value]) => {
            const state = options[String(value)] ?? { text: String(value), color: 'gray' };
            shown.add(String(value));
            const share = (at: number) => (100 * at) / values.length;
            return (
              <div key={from} style={{
                position: 'absolute', left: `${share(from)}%`, width: `${share(to - from)}%`, top: 0, bottom: 0, overflow: 'hidden',
                background: theme.visualization.getColorByName(state.color), opacity: 0.85, color: '#111', fontSize: 12,
                display: 'flex', alignItems: 'center', paddingLeft: share(to - from) > 5 ? 6 : 0,
              }}>{share(to - from) > 5 ? state.text : ''}</div>
            );
          })}
        </div>
      </div>
    );
  });
  return (
    <div>
      {rows}
      <div style={{ display: 'flex', gap: 14, paddingLeft: left, paddingTop: 4, fontSize: 12 }}>
        {[...shown].sort().map((value) => (
          <span key={value}>
            <span style={{ display: 'inline-block', width: 14, height: 4, marginRight: 6, verticalAlign: 'middle',
              background: theme.visualization.getColorByName(options[value]?.color ?? 'gray') }} />
            {options[value]?.text ?? value}
          </span>
        ))}
      </div>
    </div>
  );
}

const Words = ({ panel }: any) => (
  <div className="markdown-html" dangerouslySetInnerHTML={{ __html: renderMarkdown(panel.options.content) }} />
);
const Nothing = () => <div style={{ padding: 40, textAlign: 'center', color: theme.colors.text.secondary }}>No data</div>;
const KINDS: Record<string, any> = { timeseries: Lines, stat: Stat, bargauge: Bars, 'state-timeline': States, text: Words };

function Panel({ panel }: any) {
  const { x, y, w, h } = panel.gridPos;
  const width = w * column - GAP, height = h * CELL - GAP;
  const place = { position: 'absolute', left: x * column + GAP / 2, top: y * CELL + HEAD, width } as const;
  if (panel.type === 'row') {
    return <div style={{ ...place, fontSize: 16, fontWeight: 500, paddingTop: 6 }}>{panel.collapsed ? '›' : '⌄'} {panel.title}</div>;
  }
  const Kind = KINDS[panel.type];
  return (
    <div style={{ ...place, height }}>
      <PanelChrome title={panel.title} width={width} height={height} padding={panel.type === 'stat' ? 'none' : 'md'}>
        {(width: number, height: number) => <Kind panel={panel} width={width} height={height} />}
      </PanelChrome>
    </div>
  );
}

function Board() {
  const { board } = DATA;
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ position: 'relative', width: WIDTH, height: heightOf(board), background: theme.colors.background.canvas, color: theme.colors.text.primary }}>
        <div style={{ padding: '12px 8px 0', fontSize: 18, fontWeight: 500 }}>{board.title}</div>
        <div style={{ padding: '4px 8px', display: 'flex', gap: 8, fontSize: 12 }}>
          {board.templating.list.map((variable: any) => (
            <span key={variable.name} style={{ border: `1px solid ${theme.colors.border.medium}`, borderRadius: 2 }}>
              <span style={{ padding: '4px 8px', display: 'inline-block', background: theme.colors.background.secondary }}>{variable.label}</span>
              <span style={{ padding: '4px 8px', display: 'inline-block' }}>{variable.current.text}</span>
            </span>
          ))}
          <span style={{ flex: 1 }} />
          {board.links.map((link: any) => <span key={link.title} style={{ padding: 4, color: theme.colors.text.link }}>{link.title}</span>)}
        </div>
        {board.panels.map((panel: any) => <Panel key={panel.id} panel={panel} />)}
      </div>
    </ThemeContext.Provider>
  );
}

function heightOf(board: any) {
  return HEAD + CELL * Math.max(...board.panels.map((panel: any) => panel.gridPos.y + panel.gridPos.h)) + GAP;
}

createRoot(document.getElementById('page')!).render(<Board />);
