-- The health of any object of lvs-operator.io, for Argo CD. `obj` is the object; the result is a status and a message.
--
-- - A status about an earlier generation says nothing about the present spec: Progressing.
-- - Stalled: the object is refused, and waiting does not help. Argo CD shows Degraded.
-- - Ready (DirectorBinding: Programmed) decides between Healthy and Progressing.

local function progressing(message)
  return { status = "Progressing", message = message }
end

local status = obj.status or {}
local generation = obj.metadata.generation
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

if generation ~= nil and status.observedGeneration ~= generation then
  return progressing("the operator has not yet reconciled generation " .. string.format("%d", generation))
end

local stalled = conditions.Stalled
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.reason .. ": " .. stalled.message }
end

local ready = conditions.Ready or conditions.Programmed
if ready == nil then
  return progressing("no condition Ready yet")
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
return progressing(ready.reason .. ": " .. ready.message)
