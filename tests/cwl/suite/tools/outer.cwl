cwlVersion: v1.2
class: Workflow
doc: Greets several names, each in a workflow inside of this one, and joins the greetings.
requirements:
  ScatterFeatureRequirement: {}
  SubworkflowFeatureRequirement: {}
inputs: {names: 'string[]'}
outputs:
  joined: {type: File, outputSource: join/joined}
  each: {type: 'File[]', outputSource: greet/file}
steps:
  greet:
    run: inner.cwl
    scatter: name
    in: {name: names}
    out: [file]
  join:
    run: join.cwl
    in: {texts: greet/file}
    out: [joined]
